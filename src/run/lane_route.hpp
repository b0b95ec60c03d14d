#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/identity.hpp"
#include "base/tensor.hpp"

namespace moevar::run {

/// Sizes of a step of one layer.
struct RouteShape {
  int devices = 0;
  int slots = 0;                    ///< of a device
  std::size_t rows_per_device = 0;  ///< tokens of a device × top_k
};

/// All that one device has to know of where a layer's tokens go: known from the plan, so that no
/// device has to ask another one.
struct LaneRoute {
  std::vector<std::int32_t> experts;        ///< of its own tokens, [tokens][top_k]
  std::vector<std::int32_t> slots;          ///< of the fleet, for the same
  Matrix<std::int64_t> rows_to;             ///< [devices][slots]: that it sends
  Matrix<std::int64_t> rows_from;           ///< [devices][slots]: that come to its own slots
  std::vector<std::int64_t> rows_per_slot;  ///< [slots]: their sums
  std::int64_t received = 0;                ///< and their sum
};

/// `experts` and `slots` are those of all devices' tokens, one device after the other, each
/// [devices × rows_per_device].
LaneRoute lane_route(std::span<const std::int32_t> experts, std::span<const std::int32_t> slots,
                     const RouteShape& shape, DeviceId device);

/// Of `rows`, [devices × rows_per_device], those of every device from `first` on, `count` of each.
std::vector<std::int32_t> part_of_each(std::span<const std::int32_t> rows,
                                       std::size_t rows_per_device, std::size_t first,
                                       std::size_t count);

}  // namespace moevar::run
