#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "conditions/heat.hpp"
#include "conditions/plant.hpp"
#include "study/study.hpp"
#include "timeline/timeline.hpp"

namespace moevar::conditions {

/// Keeps real devices in the condition of a phase. Collective, as its plant is.
class Keeper {
 public:
  /// `plant` outlives the object; `caps` and `sensors` are FleetState's names of who sets and what
  /// reads.
  Keeper(Plant& plant, std::string caps, std::string sensors, const HeatOptions& options)
      : plant_(plant), caps_(std::move(caps)), sensors_(std::move(sensors)), options_(options) {}

  /// The cap, then the heat; neighbours burn until the next condition. Throws what the plant
  /// throws, and EnvironmentError where temperatures cannot be read.
  void enter(const study::Condition& condition);
  /// Back to the plateau of enter(), where the devices have left it; how they stand then. A device
  /// is steady where enter() found it so and it came back.
  timeline::FleetState settle();

 private:
  Plant& plant_;
  std::string caps_;
  std::string sensors_;
  HeatOptions options_;
  study::Condition condition_;
  HeatReport report_;
  std::vector<double> plateau_c_;
};

/// The readings that were the latest at the end of each step, as [devices][steps]; a step before
/// the first reading has that one, a device without readings unknown values. `step_end_ns` rises,
/// on the clock of the readings; nothing where nothing was sampled.
void note_steps(std::span<const Nanoseconds> step_end_ns, timeline::Telemetry& telemetry);

}  // namespace moevar::conditions
