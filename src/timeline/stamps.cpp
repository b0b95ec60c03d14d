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

/// The last of all devices, element by element.
std::vector<Nanoseconds> last_of(const mpi::Communicator& comm, std::vector<Nanoseconds> mine) {
  comm.all_reduce_max(std::span<std::int64_t>(mine));
  return mine;
}

}  // namespace

Timeline timeline_of(const mpi::Communicator& comm, const Stamps& stamps, const ClockFit& fit) {
  const std::size_t steps = stamps.entered.size();
  const std::size_t layers = stamps.exited.extent(1);
  const auto dispatched = on_common_clock(stamps.dispatched.flat(), fit);
  const auto arrived = on_common_clock(stamps.arrived.flat(), fit);
  const auto last_entry = last_of(comm, on_common_clock(stamps.entered, fit));
  const auto last_arrival = last_of(comm, arrived);
  const auto last_exit = last_of(comm, on_common_clock(stamps.exited.flat(), fit));

  Timeline timeline(1, steps, layers);
  std::ranges::copy(stamps.tokens.flat(), timeline.tokens.flat().begin());
  for (std::size_t step = 0; step < steps; ++step) {
    Nanoseconds layer_start = last_entry[step];
    for (std::size_t i = step * layers; i < (step + 1) * layers; ++i) {
      timeline.dispatch_ns.flat()[i] = dispatched[i] - layer_start;
      timeline.expert_ns.flat()[i] = arrived[i] - dispatched[i];
      timeline.arrival_ns.flat()[i] = arrived[i] - last_entry.front();
      timeline.wait_ns.flat()[i] = last_arrival[i] - arrived[i];
      timeline.combine_ns.flat()[i] = last_exit[i] - last_arrival[i];
      layer_start = last_exit[i];
    }
  }
  return timeline;
}

}  // namespace moevar::timeline
