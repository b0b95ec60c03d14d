#include <numeric>

#include "placement/greedy.hpp"
#include "placement/policies.hpp"

namespace moevar::placement {

namespace {

/// τ_d = N · s_d / Σ s with s_d = 1 / f_d(n_ref); [devices], tokens. A device whose model shows no
/// time at all leaves nothing to tell speeds by: then the targets are equal.
std::vector<double> speed_targets(const SpeedModels& speeds, double total_tokens, double n_ref) {
  const auto devices = static_cast<double>(speeds.size());
  std::vector<double> speed;
  for (const auto& curve : speeds) {
    const double time = curve.time_us(n_ref);
    if (!(time > 0.0)) {
      speed.assign(speeds.size(), total_tokens / devices);
      return speed;
    }
    speed.push_back(1.0 / time);
  }
  const double sum = std::accumulate(speed.begin(), speed.end(), 0.0);
  for (double& target : speed) {
    target *= total_tokens / sum;
  }
  return speed;
}

}  // namespace

void assign_vibe(const LayerProblem& problem, LayerSlots slots) {
  const auto loads = problem.loads();
  const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  const double n_ref =
      total / (problem.options().n_ref_printed ? problem.experts() : problem.devices());
  fill_by_shortfall(copies_for(loads, problem.devices(), problem.slots_per_device()),
                    speed_targets(problem.speeds(), total, n_ref), problem.slots_per_device(),
                    slots.expert);
}

}  // namespace moevar::placement
