#include <algorithm>
#include <numeric>

#include "base/random.hpp"
#include "placement/policies.hpp"

namespace moevar::placement {

namespace {

Matrix<std::int32_t> empty_assignment(const Problem& problem) {
  return Matrix<std::int32_t>(
      {static_cast<std::size_t>(problem.layers()),
       static_cast<std::size_t>(problem.devices * problem.slots_per_device)});
}

}  // namespace

Matrix<std::int32_t> assign_contiguous(const Problem& problem) {
  auto expert_of_slot = empty_assignment(problem);
  for (int layer = 0; layer < problem.layers(); ++layer) {
    std::iota(expert_of_slot.row(layer).begin(), expert_of_slot.row(layer).end(), 0);
  }
  return expert_of_slot;
}

Matrix<std::int32_t> assign_round_robin(const Problem& problem) {
  auto expert_of_slot = empty_assignment(problem);
  for (int layer = 0; layer < problem.layers(); ++layer) {
    for (int device = 0; device < problem.devices; ++device) {
      for (int slot = 0; slot < problem.slots_per_device; ++slot) {
        expert_of_slot(layer, device * problem.slots_per_device + slot) =
            slot * problem.devices + device;
      }
    }
  }
  return expert_of_slot;
}

Matrix<std::int32_t> assign_random(const Problem& problem) {
  auto expert_of_slot = assign_contiguous(problem);
  const auto key = random_stream(problem.seed, Stream::placement);
  for (int layer = 0; layer < problem.layers(); ++layer) {
    const auto draws = key[static_cast<std::uint64_t>(layer)];
    auto slots = expert_of_slot.row(layer);
    for (std::size_t i = slots.size(); i > 1; --i) {
      std::swap(slots[i - 1], slots[draws[i].below(i)]);
    }
  }
  return expert_of_slot;
}

}  // namespace moevar::placement
