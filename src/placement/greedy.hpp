#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "placement/placement.hpp"

namespace moevar::placement {

/// Experts by falling load; equal loads by rising index.
inline std::vector<std::int32_t> by_falling_load(std::span<const double> loads) {
  std::vector<std::int32_t> order(loads.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return loads[static_cast<std::size_t>(a)] > loads[static_cast<std::size_t>(b)];
  });
  return order;
}

/// Gives every expert of a layer, heaviest first, to the device with a free slot that needs it
/// most: the one with the largest target − tokens so far, the first of equals. A device's slots
/// fill in order.
///   targets         [devices], tokens
///   expert_of_slot  [devices × slots_per_device], filled
/// O(experts × log devices).
inline void fill_by_shortfall(std::span<const double> loads, std::span<const double> targets,
                              int slots_per_device, std::span<std::int32_t> expert_of_slot) {
  struct Open {
    double shortfall;
    std::size_t device;
    int taken;
  };
  const auto needs_less = [](const Open& a, const Open& b) {
    return a.shortfall != b.shortfall ? a.shortfall < b.shortfall : a.device > b.device;
  };
  std::vector<Open> heap;
  for (std::size_t d = 0; d < targets.size(); ++d) {
    heap.push_back({targets[d], d, 0});
  }
  std::ranges::make_heap(heap, needs_less);
  for (const std::int32_t expert : by_falling_load(loads)) {
    std::ranges::pop_heap(heap, needs_less);
    auto& neediest = heap.back();
    const auto slot = neediest.device * static_cast<std::size_t>(slots_per_device) +
                      static_cast<std::size_t>(neediest.taken++);
    expert_of_slot[slot] = expert;
    neediest.shortfall -= loads[static_cast<std::size_t>(expert)];
    if (neediest.taken < slots_per_device) {
      std::ranges::push_heap(heap, needs_less);
    } else {
      heap.pop_back();
    }
  }
}

}  // namespace moevar::placement
