#include "run/observed.hpp"

#include <numeric>
#include <vector>

#include "conditions/keeper.hpp"

namespace moevar::run {

void measure_observed(const mpi::Communicator& comm, const Sensors& sensors, bool active,
                      PhaseResult& result, const std::function<PhaseClock()>& measure) {
  auto& plant = *sensors.plant;
  const bool sampled = sensors.telemetry_hz > 0.0;
  const auto before = plant.count();
  if (sampled) {
    plant.start_telemetry(sensors.telemetry_hz);
  }
  const PhaseClock clock = active ? measure() : PhaseClock{};
  auto& telemetry = result.telemetry;
  if (sampled) {
    telemetry.series = plant.stop_telemetry();
    telemetry.polling_s = plant.polling_s();
  }
  const auto after = plant.count();
  if (!active) {
    telemetry.series.clear();
    return;
  }
  for (auto& readings : telemetry.series) {
    for (auto& reading : readings) {
      reading.time_ns = clock.fit.to_other(reading.time_ns) - clock.zero_ns;
    }
  }
  const auto& timeline = result.mine;
  std::vector<Nanoseconds> step_end_ns;
  for (std::size_t step = 0; step < timeline.steps(); ++step) {
    const std::size_t last = timeline.layers() - 1;
    step_end_ns.push_back(timeline.arrival_ns(0, step, last) + timeline.wait_ns(0, step, last) +
                          timeline.combine_ns(0, step, last));
  }
  conditions::note_steps(step_end_ns, telemetry);
  const auto me = static_cast<std::size_t>(comm.rank());
  telemetry.counted = {timeline::counted_between(before[me], after[me])};
}

timeline::FleetState unobserved(std::size_t devices) {
  timeline::DeviceState device;
  device.sm_clock_mhz = timeline::kUnknown;
  device.power_w = timeline::kUnknown;
  device.temperature_c = timeline::kUnknown;
  device.steady = false;
  timeline::FleetState state;
  state.devices.assign(devices, device);
  return state;
}

timeline::ClockReading worst_of(const mpi::Communicator& comm, bool active,
                                timeline::ClockReading mine) {
  mine = active ? mine : timeline::ClockReading{};
  comm.all_reduce_max(std::span(&mine.cost_ns, 1));
  comm.all_reduce_max(std::span(&mine.step_ns, 1));
  return mine;
}

void note_clock(const timeline::ClockReading& clock, PhaseResult& result) {
  constexpr double kStampsPerLayer = 3.0;  // timeline::Stamps: dispatched, arrived, exited
  const auto layers = result.totals.layer_ns.flat();
  const auto all = std::accumulate(layers.begin(), layers.end(), Nanoseconds{0});
  result.clock_step_ns = clock.step_ns;
  result.stamping_share = all > 0
                              ? kStampsPerLayer * clock.cost_ns *
                                    static_cast<double>(layers.size()) / static_cast<double>(all)
                              : 0.0;
}

}  // namespace moevar::run
