#include "run/share.hpp"

#include <array>
#include <cstdint>
#include <span>
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
  // all curves in a row: their lengths, then their points without the (0, 0) of each
  auto count = static_cast<std::int64_t>(speeds.size());
  comm.broadcast(std::span(&count, 1));
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(count));
  std::vector<double> tokens;
  std::vector<double> time_us;
  for (std::size_t i = 0; i < speeds.size() && comm.is_root(); ++i) {
    const auto grid = speeds[i].grid().subspan(1);
    const auto times = speeds[i].times().subspan(1);
    lengths[i] = static_cast<std::int64_t>(grid.size());
    tokens.insert(tokens.end(), grid.begin(), grid.end());
    time_us.insert(time_us.end(), times.begin(), times.end());
  }
  comm.broadcast(std::span(lengths));
  auto points = static_cast<std::int64_t>(tokens.size());
  comm.broadcast(std::span(&points, 1));
  tokens.resize(static_cast<std::size_t>(points));
  time_us.resize(tokens.size());
  comm.broadcast(std::span(tokens));
  comm.broadcast(std::span(time_us));
  if (comm.is_root()) {
    return;
  }
  speeds.clear();
  speeds.reserve(lengths.size());
  auto token = tokens.begin();
  auto time = time_us.begin();
  for (const auto length : lengths) {
    speeds.emplace_back(std::vector<double>(token, token + length),
                        std::vector<double>(time, time + length));
    token += length;
    time += length;
  }
}

}  // namespace moevar::run
