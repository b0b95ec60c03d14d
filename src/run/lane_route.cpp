#include "run/lane_route.hpp"

#include <numeric>

namespace moevar::run {

LaneRoute lane_route(std::span<const std::int32_t> experts, std::span<const std::int32_t> slots,
                     const RouteShape& shape, DeviceId device) {
  const auto devices = static_cast<std::size_t>(shape.devices);
  const auto per_device = static_cast<std::size_t>(shape.slots);
  const auto me = static_cast<std::size_t>(device);
  const auto mine = [&](auto all) {
    const auto part = all.subspan(me * shape.rows_per_device, shape.rows_per_device);
    return std::vector<std::int32_t>(part.begin(), part.end());
  };
  LaneRoute route{.experts = mine(experts),
                  .slots = mine(slots),
                  .rows_to = Matrix<std::int64_t>({devices, per_device}),
                  .rows_from = Matrix<std::int64_t>({devices, per_device}),
                  .rows_per_slot = std::vector<std::int64_t>(per_device)};
  for (const auto slot : route.slots) {
    ++route.rows_to.flat()[static_cast<std::size_t>(slot)];
  }
  const std::size_t first_slot = me * per_device;
  for (std::size_t row = 0; row < slots.size(); ++row) {
    const auto slot = static_cast<std::size_t>(slots[row]);
    if (slot >= first_slot && slot < first_slot + per_device) {
      ++route.rows_from(row / shape.rows_per_device, slot - first_slot);
      ++route.rows_per_slot[slot - first_slot];
    }
  }
  route.received = std::reduce(route.rows_per_slot.begin(), route.rows_per_slot.end());
  return route;
}

std::vector<std::int32_t> part_of_each(std::span<const std::int32_t> rows,
                                       std::size_t rows_per_device, std::size_t first,
                                       std::size_t count) {
  std::vector<std::int32_t> part;
  part.reserve(rows.size() / rows_per_device * count);
  for (std::size_t begin = 0; begin < rows.size(); begin += rows_per_device) {
    const auto here = rows.subspan(begin + first, count);
    part.insert(part.end(), here.begin(), here.end());
  }
  return part;
}

}  // namespace moevar::run
