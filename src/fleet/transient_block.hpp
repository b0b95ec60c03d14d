#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "fleet/transient.hpp"

/// How Transient lays its GPUs out; for transient.cpp alone.
namespace moevar::fleet {

/// GPUs are laid out in blocks that fit the nearest cache, so that a block can pass all the steps
/// of a call before the next one is touched. In a block the even GPUs come first and their partners
/// after them: both halves are read in order, and partners are kHalf apart.
inline constexpr std::size_t kHalf = 32;
inline constexpr std::size_t kLanes = 2 * kHalf;
inline constexpr std::size_t kMostWindowSteps = 8;

using Lanes = std::array<double, kLanes>;

struct Transient::Block {
  // the device; constants of E2 and E4
  alignas(64) Lanes gain{};
  Lanes base_w{};
  Lanes leakage_w{};      // at the lowest voltage and 65 °C
  Lanes dynamic_w_mhz{};  // at the lowest voltage
  Lanes die_c_j{};        // °C a step per watt: step / C1
  Lanes sink_c_j{};       // step / C2
  Lanes die_w_c{};        // 1 / R1
  Lanes sink_w_c{};       // 1 / R2
  // its air: inlet_c + partner_c_w P(partner) + own_c_w P
  Lanes inlet_c{};
  Lanes partner_c_w{};
  Lanes own_c_w{};
  // what it does
  Lanes level{};
  Lanes memory_w{};
  // its state
  Lanes die_c{};
  Lanes sink_c{};
  Lanes clock_mhz{};  // as it runs: halved where the hardware slows it
  Lanes power_w{};
  // power at that clock about that temperature: fixed_w + slope_w_c T + level_w level + memory_w
  Lanes fixed_w{};
  Lanes slope_w_c{};
  Lanes level_w{};
  Lanes hot_leakage_w{};                         // at the lowest voltage and that temperature
  std::array<Lanes, kMostWindowSteps> window{};  // power in the last steps, a ring
  Lanes sensed_w{};                              // what the regulator sees
  Lanes shown_w{};                               // what readers see
  std::array<std::int32_t, kLanes> clock{};      // the regulator's, on the grid
  std::array<std::int32_t, kLanes> ceiling{};    // for heat
  std::array<std::uint8_t, kLanes> reasons{};    // SwPowerCap, SwThermal since the last control
  std::array<bool, kLanes> hw_thermal{};
  std::array<bool, kLanes> hw_slowdown{};
  std::array<bool, kLanes> failed{};
  // its counters
  Lanes energy_mj{};
  Lanes clock_sum_mhz{};                              // over steps
  std::array<std::int64_t, kLanes> sw_power_cap_n{};  // control steps
  std::array<std::int64_t, kLanes> sw_thermal_n{};
  std::array<std::int64_t, kLanes> hw_thermal_n{};

  [[nodiscard]] bool halved(std::size_t lane) const {
    return hw_thermal[lane] || hw_slowdown[lane];
  }
};

/// Where GPU i lies.
struct LanePlace {
  std::size_t block;
  std::size_t lane;
};

inline LanePlace place_of(std::size_t i) {
  const std::size_t inside = i % kLanes;
  return {i / kLanes, inside / 2 + (inside % 2) * kHalf};
}

}  // namespace moevar::fleet
