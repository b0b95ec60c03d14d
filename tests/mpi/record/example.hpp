#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "record/record.hpp"
#include "record/summary.hpp"
#include "system/mpi.hpp"

/// Made-up phases whose every number follows from the phase, device, step and layer alone.
namespace moevar::record::example {

struct Size {
  int devices = 7;
  std::size_t steps = 5;
  std::size_t layers = 3;
};

/// Owns what a PhaseRecord refers to.
struct Phase {
  study::PhaseSpec spec;
  std::vector<DeviceIdentity> fleet;
  DeviceRange range;
  timeline::Timeline mine;
  timeline::LayerTotals totals;
  timeline::FleetState state;
  timeline::Telemetry telemetry;
  placement::Placement placement;
  placement::SpeedModels speeds;
  std::optional<int> speeds_from = {};  ///< another phase that has them
  CellSummary cell = {};
  std::string to_resume = {};

  [[nodiscard]] PhaseRecord record() const;
};

/// The timeline of the whole fleet.
timeline::Timeline whole_timeline(int index, const Size& size);

/// A phase whose devices lie in blocks over the ranks of `comm`. Its solve time and its ranks
/// differ between calls and numbers of ranks, as real ones do.
Phase make_phase(const mpi::Communicator& comm, int index, const Size& size);

StudyHeader header(int planned_phases);

CellSummary summary_of(const Phase& phase);

}  // namespace moevar::record::example
