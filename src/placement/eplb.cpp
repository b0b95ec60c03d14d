#include <numeric>

#include "placement/greedy.hpp"
#include "placement/policies.hpp"

namespace moevar::placement {

Matrix<std::int32_t> assign_eplb(const Problem& problem) {
  Matrix<std::int32_t> expert_of_slot(
      {static_cast<std::size_t>(problem.layers()),
       static_cast<std::size_t>(problem.devices * problem.slots_per_device)});
  for (int layer = 0; layer < problem.layers(); ++layer) {
    if (problem.slots_per_device == 1) {
      // nothing to balance: DeepSeek's packing leaves experts where they are
      std::iota(expert_of_slot.row(layer).begin(), expert_of_slot.row(layer).end(), 0);
      continue;
    }
    // equal targets: the largest shortfall is the lightest device
    fill_by_shortfall(problem.mean_loads.row(layer),
                      std::vector<double>(static_cast<std::size_t>(problem.devices), 0.0),
                      problem.slots_per_device, expert_of_slot.row(layer));
  }
  return expert_of_slot;
}

}  // namespace moevar::placement
