#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/units.hpp"
#include "serving/metrics.hpp"
#include "serving/scheduler.hpp"
#include "system/hdf5.hpp"

/// What a phase that served requests leaves: a table of its requests and one of its steps in
/// study.h5, and its summary in summary.json. results/README.md says every field.
namespace moevar::record {

/// One step of a serving run. Times are since the run's start.
struct ServingStep {
  double start_s = 0.0;
  Nanoseconds layers_ns = 0;  ///< its MoE layers
  Nanoseconds rest_ns = 0;    ///< attention and the like
  std::int64_t prefill_tokens = 0;
  std::int64_t decode_tokens = 0;
  int running = 0;  ///< requests in it
  int waiting = 0;  ///< requests that had arrived and not started
};

/// Experts were moved in the run.
struct Rearrangement {
  double at_s = 0.0;    ///< when steps stopped for it
  std::string because;  ///< as Placing has it
  std::int64_t moved_experts = 0;
  double migrate_ms = 0.0;        ///< for which they stood still
  bool of_loads = false;          ///< because of what requests ask for ...
  std::vector<int> devices = {};  ///< ... and of devices that left their speed models
};

/// Something changed in the run, and what came of it until the next change.
struct Change {
  std::string what;                ///< "sharegpt to sonnet", "device 3: capped"
  std::optional<int> device = {};  ///< that was slowed; none: other requests came
  double at_s = 0.0;
  std::optional<double> noticed_after_s = {};  ///< first rearrangement because of it
  /// Until the straggler tax was back: its rolling mean over 50 steps within a quarter of its rise
  /// of what it was before. 0: it never rose by a tenth. None: never, or there is
  /// nothing to compare.
  std::optional<double> recovered_after_s = {};
  std::optional<double> tax_before = {};  ///< over up to 50 steps; none: it came first
  std::optional<double> tax_peak = {};    ///< of 50 steps; none: there were fewer
  std::optional<double> tax_end = {};     ///< over the last 50 of them
  std::int64_t moved_experts = 0;
  double stopped_ms = 0.0;                    ///< steps stood still for moves
  std::optional<double> ttft_before_ms = {};  ///< median of requests that arrived 5 s before
  std::optional<double> ttft_peak_ms = {};    ///< highest of those that arrived after
};

/// The search for the highest rate, per device.
struct RateFound {
  std::optional<double> rate = {};
  std::optional<double> kept = {};    ///< bracket: highest rate that keeps the attainment ...
  std::optional<double> missed = {};  ///< ... and the next one above, which does not
  std::vector<std::pair<double, double>> evaluations;  ///< rate, attainment, in order
};

struct ServingSummary {
  double rate = 0.0;  ///< requests per second and device, as offered
  serving::Metrics metrics;
  std::size_t steps = 0;
  double layers_s = 0.0;  ///< all steps' MoE layers ...
  double rest_s = 0.0;    ///< ... and the rest of them
  std::optional<RateFound> search;
  /// The same requests in virtual time, with steps that take what the speed models say: real
  /// devices alone.
  std::optional<serving::Metrics> predicted;
  std::vector<Rearrangement> rearrangements;
  std::vector<Change> changes;
};

/// The tables of study.h5.
struct ServingRecord {
  std::vector<serving::Served> requests;
  std::vector<ServingStep> steps;
  std::vector<Rearrangement> rearrangements;
};

nlohmann::ordered_json to_json(const ServingSummary& summary);
/// What to_json wrote. Throws nlohmann's exceptions where it is something else.
ServingSummary serving_from_json(const nlohmann::ordered_json& json);

/// Writes group `serving` of a phase.
void write_serving(const hdf5::Group& phase, const ServingRecord& record);

}  // namespace moevar::record
