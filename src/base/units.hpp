#pragma once

#include <cstdint>

namespace moevar {

/// Durations and clock readings. A timeline holds integers: sums over devices are then the same in
/// whatever order, and so at whatever number of ranks, they are formed.
using Nanoseconds = std::int64_t;

/// A device's place in the fleet, 0-based, the same on every rank.
using DeviceId = std::int32_t;

/// Devices [begin, end) of the fleet: what one rank owns.
struct DeviceRange {
  DeviceId begin = 0;
  DeviceId end = 0;
  [[nodiscard]] constexpr DeviceId size() const noexcept { return end - begin; }
  [[nodiscard]] constexpr bool contains(DeviceId d) const noexcept { return d >= begin && d < end; }
};

/// The share of `total` devices that falls to `rank` of `ranks`: contiguous, as even as it goes,
/// the first total % ranks ranks one device longer. Empty where there are fewer devices than ranks.
constexpr DeviceRange block_of(int rank, int ranks, DeviceId total) noexcept {
  const DeviceId base = total / ranks;
  const DeviceId longer = total % ranks;
  const DeviceId begin = rank * base + (rank < longer ? rank : longer);
  return {begin, begin + base + (rank < longer ? 1 : 0)};
}

/// The nearest whole nanosecond of a duration >= 0. llround() would be a call in inner loops.
constexpr Nanoseconds to_nanoseconds(double ns) noexcept {
  const auto whole = static_cast<Nanoseconds>(ns);
  return ns - static_cast<double>(whole) >= 0.5 ? whole + 1 : whole;
}

constexpr double ns_to_us(Nanoseconds ns) noexcept { return static_cast<double>(ns) * 1e-3; }

}  // namespace moevar
