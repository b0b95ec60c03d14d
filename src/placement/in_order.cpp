#include <cstdint>
#include <utility>

#include "base/random.hpp"
#include "placement/policies.hpp"

namespace moevar::placement {

void assign_contiguous(const LayerProblem& problem, LayerSlots slots) {
  for (std::size_t slot = 0; slot < slots.expert.size(); ++slot) {
    slots.expert[slot] = static_cast<std::int32_t>(slot) % problem.experts();
  }
}

void assign_round_robin(const LayerProblem& problem, LayerSlots slots) {
  std::int32_t next = 0;
  for (int slot = 0; slot < problem.slots_per_device(); ++slot) {
    for (int device = 0; device < problem.devices(); ++device) {
      slots.expert[static_cast<std::size_t>(device) *
                       static_cast<std::size_t>(problem.slots_per_device()) +
                   static_cast<std::size_t>(slot)] = next++ % problem.experts();
    }
  }
}

void assign_random(const LayerProblem& problem, LayerSlots slots) {
  assign_contiguous(problem, slots);
  const auto draws = random_stream(problem.options().seed,
                                   Stream::placement)[static_cast<std::uint64_t>(problem.layer())];
  for (std::size_t i = slots.expert.size(); i > 1; --i) {
    std::swap(slots.expert[i - 1], slots.expert[draws[i].below(i)]);
  }
}

}  // namespace moevar::placement
