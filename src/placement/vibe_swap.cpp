#include <algorithm>
#include <vector>

#include "placement/placement.hpp"
#include "placement/policies.hpp"
#include "placement/replicas.hpp"
#include "placement/vibe_update.hpp"

namespace moevar::placement {

void assign_vibe_swap(const LayerProblem& problem, LayerSlots slots) {
  // far above what convergence takes; a backstop only
  const int most_swaps = 100 * problem.slots();
  if (const auto* from = problem.options().from; from != nullptr) {
    std::ranges::copy(from->expert_of_slot.row(problem.layer()), slots.expert.begin());
    std::ranges::copy(from->share_of_slot.row(problem.layer()), slots.share.begin());
    vibe_update(problem, kVibeEpsilon, most_swaps, slots);
    return;
  }
  assign_vibe(problem, slots);
  share_evenly(slots.expert, problem.experts(), slots.share);
  if (problem.slots() > problem.experts()) {
    std::vector<double> load_of_slot;
    for (std::size_t slot = 0; slot < slots.expert.size(); ++slot) {
      load_of_slot.push_back(problem.loads()[static_cast<std::size_t>(slots.expert[slot])] *
                             slots.share[slot]);
    }
    separate_replicas(problem.slots_per_device(), slots.expert, load_of_slot);
    share_evenly(slots.expert, problem.experts(), slots.share);
  }
  vibe_update(problem, 0.0, most_swaps, slots);
}

}  // namespace moevar::placement
