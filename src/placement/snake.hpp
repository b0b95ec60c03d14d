#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "placement/replicas.hpp"

namespace moevar::placement {

/// Deals copies to devices in rounds, every second round in the opposite order. As many copies as
/// slots, by falling load; `devices` in the order of the first round; a device's slots fill in
/// order of the rounds.
inline void deal_in_snake_order(std::span<const Copy> copies, std::span<const int> devices,
                                std::span<std::int32_t> expert_of_slot) {
  const std::size_t width = copies.size() / devices.size();
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const std::size_t round = i / devices.size();
    const std::size_t turn = i % devices.size();
    const auto device = devices[round % 2 == 0 ? turn : devices.size() - 1 - turn];
    expert_of_slot[static_cast<std::size_t>(device) * width + round] = copies[i].expert;
  }
}

}  // namespace moevar::placement
