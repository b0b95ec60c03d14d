#include <numeric>
#include <vector>

#include "placement/greedy.hpp"
#include "placement/policies.hpp"

namespace moevar::placement {

void assign_eplb(const LayerProblem& problem, LayerSlots slots) {
  if (problem.slots_per_device() == 1 && problem.slots() == problem.experts()) {
    // nothing to balance: DeepSeek's packing leaves experts where they are
    std::iota(slots.expert.begin(), slots.expert.end(), 0);
    return;
  }
  // equal targets: the largest shortfall is the lightest device
  fill_by_shortfall(copies_for(problem.loads(), problem.devices(), problem.slots_per_device()),
                    std::vector<double>(static_cast<std::size_t>(problem.devices()), 0.0),
                    problem.slots_per_device(), slots.expert);
}

}  // namespace moevar::placement
