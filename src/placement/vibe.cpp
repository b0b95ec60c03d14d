#include <numeric>

#include "placement/greedy.hpp"
#include "placement/policies.hpp"

namespace moevar::placement {

namespace {

/// τ_d = N · s_d / Σ s with s_d = 1 / f_d(N/G); [devices], tokens. A device whose model shows no
/// time at all leaves nothing to tell speeds by: then the targets are equal.
std::vector<double> speed_targets(const SpeedModels& speeds, double total_tokens) {
  const auto devices = static_cast<double>(speeds.size());
  std::vector<double> speed;
  for (const auto& curve : speeds) {
    const double time = curve.time_us(total_tokens / devices);
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

Matrix<std::int32_t> assign_vibe(const Problem& problem) {
  Matrix<std::int32_t> expert_of_slot(
      {static_cast<std::size_t>(problem.layers()),
       static_cast<std::size_t>(problem.devices * problem.slots_per_device)});
  for (int layer = 0; layer < problem.layers(); ++layer) {
    const auto loads = problem.mean_loads.row(layer);
    const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
    fill_by_shortfall(loads, speed_targets(problem.speeds, total), problem.slots_per_device,
                      expert_of_slot.row(layer));
  }
  return expert_of_slot;
}

}  // namespace moevar::placement
