#include "run/observed.hpp"

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

}  // namespace moevar::run
