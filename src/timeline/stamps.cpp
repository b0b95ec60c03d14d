#include "timeline/stamps.hpp"

#include <algorithm>

namespace moevar::timeline {

Stamps::Stamps(std::size_t steps, std::size_t layers)
    : entered(steps),
      dispatched({steps, layers}),
      arrived({steps, layers}),
      exited({steps, layers}),
      tokens({steps, layers}) {}

namespace {

std::vector<Nanoseconds> on_common_clock(std::span<const Nanoseconds> readings,
                                         const ClockFit& fit) {
  std::vector<Nanoseconds> common(readings.size());
  std::ranges::transform(readings, common.begin(),
                         [&](Nanoseconds reading) { return fit.to_other(reading); });
  return common;
}

/// The last of all devices, element by element; `readings` are of this rank's.
std::vector<Nanoseconds> last_of(const mpi::Communicator& comm,
                                 const std::vector<std::vector<Nanoseconds>>& readings) {
  auto last = readings.front();
  for (const auto& other : std::span(readings).subspan(1)) {
    std::ranges::transform(last, other, last.begin(), std::ranges::max);
  }
  comm.all_reduce_max(std::span<std::int64_t>(last));
  return last;
}

}  // namespace

Timeline timeline_of(const mpi::Communicator& comm, std::span<const Stamps> stamps,
                     const ClockFit& fit) {
  const std::size_t steps = stamps.front().entered.size();
  const std::size_t layers = stamps.front().exited.extent(1);
  using Readings = std::vector<std::vector<Nanoseconds>>;
  Readings entered;
  Readings dispatched;
  Readings arrived;
  Readings exited;
  for (const auto& device : stamps) {
    entered.push_back(on_common_clock(device.entered, fit));
    dispatched.push_back(on_common_clock(device.dispatched.flat(), fit));
    arrived.push_back(on_common_clock(device.arrived.flat(), fit));
    exited.push_back(on_common_clock(device.exited.flat(), fit));
  }
  const auto last_entry = last_of(comm, entered);
  const auto last_arrival = last_of(comm, arrived);
  const auto last_exit = last_of(comm, exited);

  Timeline timeline(stamps.size(), steps, layers);
  for (std::size_t d = 0; d < stamps.size(); ++d) {
    std::ranges::copy(stamps[d].tokens.flat(), timeline.tokens.row(d).begin());
    for (std::size_t step = 0; step < steps; ++step) {
      Nanoseconds layer_start = last_entry[step];
      for (std::size_t i = step * layers; i < (step + 1) * layers; ++i) {
        timeline.dispatch_ns.row(d)[i] = dispatched[d][i] - layer_start;
        timeline.expert_ns.row(d)[i] = arrived[d][i] - dispatched[d][i];
        timeline.arrival_ns.row(d)[i] = arrived[d][i] - last_entry.front();
        timeline.wait_ns.row(d)[i] = last_arrival[i] - arrived[d][i];
        timeline.combine_ns.row(d)[i] = last_exit[i] - last_arrival[i];
        layer_start = last_exit[i];
      }
    }
  }
  return timeline;
}

}  // namespace moevar::timeline
