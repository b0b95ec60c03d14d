#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "placement/replicas.hpp"

namespace moevar::placement {

/// Gives every copy of a layer, heaviest first, to the device with a free slot that needs it most:
/// the one with the largest target − tokens so far, the first of equals. Devices that already hold
/// the expert stand back while another has a free slot. A device's slots fill in order.
///   copies          by falling load
///   targets         [devices], tokens
///   expert_of_slot  [devices × slots_per_device], filled
/// O(copies × log devices) without replicas.
inline void fill_by_shortfall(std::span<const Copy> copies, std::span<const double> targets,
                              int slots_per_device, std::span<std::int32_t> expert_of_slot) {
  struct Open {
    double shortfall;
    std::size_t device;
    int taken;
  };
  const auto needs_less = [](const Open& a, const Open& b) {
    return a.shortfall != b.shortfall ? a.shortfall < b.shortfall : a.device > b.device;
  };
  const auto width = static_cast<std::size_t>(slots_per_device);
  std::vector<Open> heap;
  heap.reserve(targets.size());
  for (std::size_t d = 0; d < targets.size(); ++d) {
    heap.push_back({targets[d], d, 0});
  }
  std::ranges::make_heap(heap, needs_less);
  std::vector<Open> aside;
  for (const auto& copy : copies) {
    const auto holds_it = [&](const Open& open) {
      const auto slots =
          expert_of_slot.subspan(open.device * width, static_cast<std::size_t>(open.taken));
      return std::ranges::find(slots, copy.expert) != slots.end();
    };
    aside.clear();
    std::ranges::pop_heap(heap, needs_less);
    while (holds_it(heap.back()) && heap.size() > 1) {
      aside.push_back(heap.back());
      heap.pop_back();
      std::ranges::pop_heap(heap, needs_less);
    }
    if (!aside.empty() && holds_it(heap.back())) {  // all hold it: the neediest after all
      std::swap(aside.front(), heap.back());
    }
    auto& neediest = heap.back();
    expert_of_slot[neediest.device * width + static_cast<std::size_t>(neediest.taken++)] =
        copy.expert;
    neediest.shortfall -= copy.load;
    if (neediest.taken < slots_per_device) {
      std::ranges::push_heap(heap, needs_less);
    } else {
      heap.pop_back();
    }
    for (const auto& open : aside) {
      heap.push_back(open);
      std::ranges::push_heap(heap, needs_less);
    }
  }
}

}  // namespace moevar::placement
