#include "fleet/draw.hpp"

#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "fleet/model_fleet.hpp"

namespace moevar::fleet {

namespace {

/// The first `count` of a random order of 0 ... size − 1.
std::vector<DeviceId> random_prefix(const RandomKey& key, int size, int count) {
  std::vector<DeviceId> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    std::swap(order[i], order[i + key[i].below(order.size() - i)]);
  }
  order.resize(static_cast<std::size_t>(count));
  return order;
}

/// A node's places, its pairs of neighbours kept together.
std::vector<int> order_in_node(const RandomKey& key) {
  std::vector<int> places;
  for (const int pair : random_prefix(key[0], kGpusPerNode / 2, kGpusPerNode / 2)) {
    const int first = key[1][static_cast<std::uint64_t>(pair)].below(2) == 0 ? 0 : 1;
    places.push_back(2 * pair + first);
    places.push_back(2 * pair + 1 - first);
  }
  return places;
}

}  // namespace

std::vector<DeviceId> draw_devices(std::uint64_t seed, int number, int pool, int count,
                                   study::Draw draw) {
  if (count < 1 || count > pool) {
    throw InputError(fmt::format("{} devices drawn from a pool of {}", count, pool));
  }
  const auto key = random_stream(seed, Stream::fleet_draw)[static_cast<std::uint64_t>(number)];
  if (draw == study::Draw::devices) {
    return random_prefix(key, pool, count);
  }
  if (pool % kGpusPerNode != 0) {
    throw InputError(fmt::format("a pool of {} devices is not made up of nodes of {}; {} is", pool,
                                 kGpusPerNode, (pool / kGpusPerNode + 1) * kGpusPerNode));
  }
  std::vector<DeviceId> devices;
  const int nodes = (count + kGpusPerNode - 1) / kGpusPerNode;
  for (const DeviceId node : random_prefix(key[0], pool / kGpusPerNode, nodes)) {
    for (const int place : order_in_node(key[1][static_cast<std::uint64_t>(node)])) {
      devices.push_back(node * kGpusPerNode + place);
    }
  }
  devices.resize(static_cast<std::size_t>(count));
  return devices;
}

}  // namespace moevar::fleet
