#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/identity.hpp"
#include "base/units.hpp"
#include "placement/placement.hpp"
#include "placement/speed_model.hpp"
#include "record/manifest.hpp"
#include "record/recorded_run.hpp"
#include "record/serving_record.hpp"
#include "record/summary.hpp"
#include "study/plan.hpp"
#include "system/mpi.hpp"
#include "timeline/timeline.hpp"

/// study.h5: results/README.md says every field. Rank 0 gathers and writes (serial HDF5), or all
/// ranks write their part through MPI-IO (MOEVAR_PARALLEL_HDF5); what a reader finds is the same.
namespace moevar::record {

/// The root attributes.
struct StudyHeader {
  std::string study_name;
  std::string study_toml;  ///< canonical, every key with its value
  std::string moevar_version;
  std::string device_kind;  ///< "model" | "cpu" | "cuda"
  int planned_phases = 0;
  /// All devices that phases take theirs from; none: as many as the largest phase so far has.
  std::vector<DeviceIdentity> pool = {};
  Manifest manifest = {};
};

/// Everything about one phase. References outlive the call.
struct PhaseRecord {
  const study::PhaseSpec& spec;
  std::string workload;  ///< "synthetic" | "counts" | "tokens"
  std::string heat;
  std::int64_t first_step = 0;
  std::int64_t tokens_per_step = 0;
  std::string timer;
  std::string sync;
  Nanoseconds clock_residual_ns = 0;
  double reference_error = 0.0;
  Nanoseconds clock_step_ns = 0;
  double stamping_share = 0.0;
  std::int64_t moved_experts = 0;
  std::int64_t moved_bytes = 0;
  double migrate_ms = 0.0;
  const std::vector<DeviceIdentity>& fleet;  ///< whole fleet
  DeviceRange range;                         ///< the devices of `mine`
  const timeline::Timeline& mine;            ///< this rank's devices
  const timeline::LayerTotals& totals;
  const timeline::FleetState& state;
  const timeline::Telemetry& telemetry;  ///< of this rank's devices
  const placement::Placement& placement;
  const placement::SpeedModels& speeds;  ///< whole fleet
  std::optional<int> speeds_from = {};   ///< an earlier phase of the study that has the same ones
  std::string solved_because;            ///< why `placement` is this one: results/README.md
  std::string stop_reason = "fixed";     ///< why its steps ended: results/README.md
  bool per_step = false;                 ///< `placement` is that of the first of many
  /// Of this rank's devices, where `mine` has no steps.
  std::optional<timeline::DeviceTotals> device_totals = {};
  const ServingRecord* serving = nullptr;  ///< where it served requests
  const CellSummary& cell;                 ///< its row of summary.json
  std::string to_resume = {};  ///< bytes that the run wants back where it goes on after this phase
};

/// Writes a study. A phase that `write` returned from survives whatever happens next; until then it
/// is not there at all. Where a study has more than 256 phases, study.h5 learns of them in
/// batches: the last ones of a run that dies are found in phases/ alone. Every member is
/// collective.
class StudyWriter {
 public:
  /// Creates `directory`, and manifest.json and study.h5 in it. Throws InputError where it already
  /// holds a run, EnvironmentError where it cannot be written; then nothing is left behind. With
  /// `recorded`, which rank 0 alone has: goes on with what an earlier session left there;
  /// the caller holds the folder's lock.
  StudyWriter(const mpi::Communicator& comm, std::filesystem::path directory,
              const StudyHeader& header, const RecordedRun* recorded = nullptr);
  ~StudyWriter();
  StudyWriter(const StudyWriter&) = delete;
  StudyWriter& operator=(const StudyWriter&) = delete;

  /// Writes the phase as /phases/NNNN. `with_timelines`: whether the [devices, steps, layers]
  /// arrays go in; totals always do. A fleet larger than any before replaces /fleet.
  void write(const PhaseRecord& phase, bool with_timelines);

  /// Whether study.h5 knows all phases that were written. Rank 0 alone.
  [[nodiscard]] bool up_to_date() const;

  /// Joins the phases into one self-contained study.h5 and sets complete = 1, last of all. The
  /// phases' own files stay until remove_parts().
  void finish();
  /// Once finished, and once nothing else of the run is left to be written: says in manifest.json
  /// that it is complete.
  void remove_parts();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Whether `directory` holds a run (study.h5 or what one leaves half-way). Not collective.
bool holds_run(const std::filesystem::path& directory);

}  // namespace moevar::record
