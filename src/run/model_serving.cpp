#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "fleet/gpu_physics.hpp"
#include "run/model_backend.hpp"

namespace moevar::run {

void Backend::disturb(DeviceId device, study::Disturbance how) {
  throw CheckError(
      fmt::format("device {}: \"{}\" is for modelled GPUs; real ones slow by themselves", device,
                  to_string(how)));
}

double Backend::exchange_us(std::int64_t tokens) const {
  throw CheckError(fmt::format("a step of {} tokens: these devices serve no requests", tokens));
}

double ModelBackend::exchange_us(std::int64_t tokens) const {
  const std::int64_t copies = (tokens + devices_ - 1) / devices_ * model_.top_k;
  return 1e-3 * static_cast<double>(dispatch_.time_ns(copies) + combine_.time_ns(copies));
}

void ModelBackend::disturb(DeviceId device, study::Disturbance how) {
  constexpr double kWarmerC = 15.0;
  constexpr double kOfCap = 0.7;
  constexpr double kLonger = 1.3;
  (void)states();
  if (plant_ && !settled_) {
    throw EnvironmentError(fmt::format(
        "device {}: the fleet has not reached its steady state, in which devices are slowed; "
        "conditions.heat_limit_s is too short",
        device));
  }
  const auto index = static_cast<std::size_t>(device);
  disturbed_.push_back({index, gpus_.at(index), state_.devices.at(index)});
  auto& gpu = gpus_[index];
  auto condition = condition_;
  switch (how) {
    case study::Disturbance::none:
      break;
    case study::Disturbance::hot_aisle:
      gpu.t_in_c += kWarmerC;
      break;
    case study::Disturbance::capped:
      condition.power_cap_w =
          std::max(family_.cap_min_w, kOfCap * condition_.power_cap_w.value_or(family_.cap_max_w));
      break;
    case study::Disturbance::failing:
      gpu.slow_factor *= kLonger;
      break;
  }
  const auto state = fleet::device_state(family_, gpu, fleet::gemm_activity(), condition);
  auto& mine = state_.devices[index];
  mine.sm_clock_mhz = state.sm_clock_mhz;
  mine.power_w = state.power_w;
  mine.temperature_c = state.temperature_c;
  mine.throttle_reasons = state.throttle_reasons;
}

void ModelBackend::calm() {
  for (; !disturbed_.empty(); disturbed_.pop_back()) {
    const auto& was = disturbed_.back();
    gpus_[was.device] = was.gpu;
    state_.devices[was.device] = was.state;
  }
}

}  // namespace moevar::run
