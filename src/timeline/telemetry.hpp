#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "base/units.hpp"

/// What sensors say of a device while it works. NaN: the device does not tell.
namespace moevar::timeline {

/// NVML's clocks-event reasons, a bitmask: test with AND.
namespace reason {
inline constexpr std::uint64_t gpu_idle = 0x1;
inline constexpr std::uint64_t sw_power_cap = 0x4;
inline constexpr std::uint64_t hw_slowdown = 0x8;
inline constexpr std::uint64_t sw_thermal = 0x20;
inline constexpr std::uint64_t hw_thermal = 0x40;
inline constexpr std::uint64_t power_brake = 0x80;
/// What holds a clock down, as against what merely is so.
inline constexpr std::uint64_t throttled =
    sw_power_cap | hw_slowdown | sw_thermal | hw_thermal | power_brake;
}  // namespace reason

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// One reading of a device's sensors.
struct Reading {
  Nanoseconds time_ns = 0;  ///< on the clock of whoever read
  double sm_clock_mhz = kUnknown;
  double power_w = kUnknown;  ///< as the sensor shows it
  double temperature_c = kUnknown;
  std::uint64_t throttle_reasons = 0;
};

/// What a device has counted since some start: differences mean something.
struct Counters {
  double energy_mj = kUnknown;
  double sw_power_cap_ns = kUnknown;  ///< time with that reason
  double sw_thermal_ns = kUnknown;
  double hw_thermal_ns = kUnknown;
};

/// What was counted in between.
inline Counters counted_between(const Counters& before, const Counters& after) {
  return {after.energy_mj - before.energy_mj, after.sw_power_cap_ns - before.sw_power_cap_ns,
          after.sw_thermal_ns - before.sw_thermal_ns, after.hw_thermal_ns - before.hw_thermal_ns};
}

/// What was counted in two stretches of time together.
inline Counters counted_together(const Counters& one, const Counters& other) {
  return {one.energy_mj + other.energy_mj, one.sw_power_cap_ns + other.sw_power_cap_ns,
          one.sw_thermal_ns + other.sw_thermal_ns, one.hw_thermal_ns + other.hw_thermal_ns};
}

/// Limits that differ by no more are the same: drivers round.
inline constexpr double kSameCapW = 0.5;

/// A device's power limit.
struct CapState {
  double requested_w = kUnknown;  ///< NaN: none was asked for
  double enforced_w = kUnknown;
  double default_w = kUnknown;
  double min_w = kUnknown;
  double max_w = kUnknown;
};

}  // namespace moevar::timeline
