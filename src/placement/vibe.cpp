#include <numeric>

#include "placement/greedy.hpp"
#include "placement/policies.hpp"
#include "placement/targets.hpp"

namespace moevar::placement {

void assign_vibe(const LayerProblem& problem, LayerSlots slots) {
  const auto loads = problem.loads();
  const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  const double n_ref =
      total / (problem.options().n_ref_printed ? problem.experts() : problem.devices());
  fill_by_shortfall(copies_for(loads, problem.devices(), problem.slots_per_device()),
                    speed_targets(problem.speeds(), total, n_ref), problem.slots_per_device(),
                    slots.expert);
}

void assign_vibe_finish(const LayerProblem& problem, LayerSlots slots) {
  const auto loads = problem.loads();
  const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  fill_by_shortfall(copies_for(loads, problem.devices(), problem.slots_per_device()),
                    finish_targets(problem.speeds(), total), problem.slots_per_device(),
                    slots.expert);
}

}  // namespace moevar::placement
