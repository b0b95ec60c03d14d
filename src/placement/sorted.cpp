#include <algorithm>
#include <numeric>
#include <vector>

#include "placement/policies.hpp"
#include "placement/snake.hpp"

namespace moevar::placement {

void assign_sorted(const LayerProblem& problem, LayerSlots slots) {
  const auto loads = problem.loads();
  const double tokens = std::accumulate(loads.begin(), loads.end(), 0.0);
  std::vector<double> time_us;
  for (const auto& curve : problem.speeds()) {
    time_us.push_back(curve.time_us(tokens / problem.devices()));
  }
  std::vector<int> devices(time_us.size());
  std::iota(devices.begin(), devices.end(), 0);
  std::ranges::stable_sort(devices, {},
                           [&](int d) { return time_us[static_cast<std::size_t>(d)]; });
  deal_in_snake_order(copies_for(loads, problem.devices(), problem.slots_per_device()), devices,
                      slots.expert);
}

}  // namespace moevar::placement
