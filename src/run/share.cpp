#include "run/share.hpp"

#include <array>
#include <cstdint>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace moevar::run {

void share(const mpi::Communicator& comm, placement::Placement& placement) {
  std::array<std::int32_t, 3> sizes{placement.devices, placement.slots_per_device,
                                    placement.layers()};
  comm.broadcast(std::span(sizes));
  comm.broadcast(placement.policy);
  if (!comm.is_root()) {
    placement.devices = sizes[0];
    placement.slots_per_device = sizes[1];
    const auto layers = static_cast<std::size_t>(sizes[2]);
    const std::array<std::size_t, 2> shape{layers, static_cast<std::size_t>(placement.slots())};
    placement.expert_of_slot = Matrix<std::int32_t>(shape);
    placement.share_of_slot = Matrix<double>(shape);
    placement.predicted_us.resize(layers);
    placement.lower_bound_us.resize(layers);
  }
  comm.broadcast(placement.expert_of_slot.flat());
  comm.broadcast(placement.share_of_slot.flat());
  comm.broadcast(std::span(placement.predicted_us));
  comm.broadcast(std::span(placement.lower_bound_us));
  comm.broadcast(std::span(&placement.solve_ms, 1));
}

void share(const mpi::Communicator& comm, placement::SpeedModels& speeds) {
  // all curves in a row: their lengths, then their points without the (0, 0) of each; those that
  // were measured have intervals too
  auto count = static_cast<std::int64_t>(speeds.size());
  comm.broadcast(std::span(&count, 1));
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(count));
  std::array<std::vector<double>, 4> points;  // tokens, times, ends of intervals
  std::int64_t measured = 0;
  std::string taken_from;  // of each a line
  const auto add = [](std::vector<double>& to, std::span<const double> values) {
    to.insert(to.end(), values.begin(), values.end());
  };
  for (std::size_t i = 0; i < speeds.size() && comm.is_root(); ++i) {
    const auto grid = speeds[i].grid().subspan(1);
    const auto& measurement = speeds[i].measurement();
    measured = measurement.lower_us.empty() ? 0 : 1;
    taken_from += measurement.taken_from + '\n';
    lengths[i] = static_cast<std::int64_t>(grid.size());
    add(points[0], grid);
    add(points[1], speeds[i].times().subspan(1));
    add(points[2], measurement.lower_us);
    add(points[3], measurement.upper_us);
  }
  comm.broadcast(std::span(lengths));
  comm.broadcast(std::span(&measured, 1));
  comm.broadcast(taken_from);
  const auto all = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  for (auto& values : std::span(points).first(measured != 0 ? 4 : 2)) {
    values.resize(static_cast<std::size_t>(all));
    comm.broadcast(std::span(values));
  }
  if (comm.is_root()) {
    return;
  }
  speeds.clear();
  speeds.reserve(lengths.size());
  std::ptrdiff_t at = 0;
  const auto next = [&](std::size_t i, std::int64_t length) {
    const auto begin = points.at(i).begin() + at;
    return std::vector<double>(begin, begin + length);
  };
  std::istringstream sources(taken_from);
  for (const auto length : lengths) {
    std::string source;
    std::getline(sources, source);
    if (measured != 0) {
      speeds.emplace_back(next(0, length), next(1, length),
                          placement::Measurement{next(2, length), next(3, length), source});
    } else {
      speeds.emplace_back(next(0, length), next(1, length));
    }
    at += length;
  }
}

}  // namespace moevar::run
