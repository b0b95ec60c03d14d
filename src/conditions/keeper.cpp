#include "conditions/keeper.hpp"

#include <algorithm>
#include <array>

namespace moevar::conditions {

void Keeper::enter(const study::Condition& condition) {
  plant_.keep_burning(Burn::nobody);
  plant_.set_cap(condition.power_cap_w);
  report_ = bring_to(plant_, condition.heat, options_);
  if (condition.heat == study::Heat::neighbours) {
    plant_.keep_burning(Burn::neighbours);
  }
  condition_ = condition;
  plateau_c_.clear();
  for (const auto& reading : plant_.read()) {
    plateau_c_.push_back(reading.temperature_c);
  }
}

timeline::FleetState Keeper::settle() {
  const double held_s = hold(plant_, condition_.heat, plateau_c_, options_);
  const auto caps = plant_.caps();
  const auto readings = plant_.read();
  timeline::FleetState state;
  state.caps = caps_;
  state.sensors = sensors_;
  state.cap_changes = plant_.watch();
  state.heat_s = report_.seconds;
  state.window_s = report_.window_s;
  for (std::size_t device = 0; device < readings.size(); ++device) {
    const auto& reading = readings[device];
    state.devices.push_back({.cap = caps[device],
                             .sm_clock_mhz = reading.sm_clock_mhz,
                             .power_w = reading.power_w,
                             .temperature_c = reading.temperature_c,
                             .throttle_reasons = reading.throttle_reasons,
                             .steady = report_.devices[device].steady && held_s < options_.limit_s,
                             .slope_c_min = report_.devices[device].slope_c_min});
  }
  return state;
}

void note_steps(std::span<const Nanoseconds> step_end_ns, timeline::Telemetry& telemetry) {
  const auto& all = telemetry.series;
  if (all.empty()) {
    return;
  }
  const std::array<std::size_t, 2> shape{all.size(), step_end_ns.size()};
  telemetry.step_sm_clock_mhz = Matrix<double>(shape, timeline::kUnknown);
  telemetry.step_temperature_c = Matrix<double>(shape, timeline::kUnknown);
  telemetry.step_throttle_reasons = Matrix<std::uint32_t>(shape);
  for (std::size_t device = 0; device < all.size(); ++device) {
    std::size_t latest = 0;
    for (std::size_t step = 0; step < step_end_ns.size() && !all[device].empty(); ++step) {
      while (latest + 1 < all[device].size() &&
             all[device][latest + 1].time_ns <= step_end_ns[step]) {
        ++latest;
      }
      const auto& reading = all[device][latest];
      telemetry.step_sm_clock_mhz(device, step) = reading.sm_clock_mhz;
      telemetry.step_temperature_c(device, step) = reading.temperature_c;
      telemetry.step_throttle_reasons(device, step) =
          static_cast<std::uint32_t>(reading.throttle_reasons);
    }
  }
}

}  // namespace moevar::conditions
