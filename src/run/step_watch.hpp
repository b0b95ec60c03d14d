#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/tensor.hpp"
#include "base/units.hpp"
#include "conditions/model_plant.hpp"
#include "timeline/telemetry.hpp"

namespace moevar::run {

/// Notes what this rank's modelled devices show while steps run.
class StepWatch {
 public:
  StepWatch(conditions::ModelPlant& plant, std::size_t steps, double telemetry_hz)
      : plant_(plant),
        start_ns_(to_nanoseconds(1e9 * plant.time_s())),
        before_(plant.my_counters()),
        sampling_(telemetry_hz > 0.0) {
    const std::array<std::size_t, 2> shape{before_.size(), steps};
    telemetry_.step_sm_clock_mhz = Matrix<double>(shape);
    telemetry_.step_temperature_c = Matrix<double>(shape);
    telemetry_.step_throttle_reasons = Matrix<std::uint32_t>(shape);
    if (sampling_) {
      plant_.start_telemetry(telemetry_hz);
    }
  }

  /// At the end of a step.
  void note(std::size_t step) {
    const auto readings = plant_.my_readings();
    for (std::size_t i = 0; i < readings.size(); ++i) {
      telemetry_.step_sm_clock_mhz(i, step) = readings[i].sm_clock_mhz;
      telemetry_.step_temperature_c(i, step) = readings[i].temperature_c;
      telemetry_.step_throttle_reasons(i, step) =
          static_cast<std::uint32_t>(readings[i].throttle_reasons);
    }
  }

  timeline::Telemetry finish() {
    const auto after = plant_.my_counters();
    for (std::size_t i = 0; i < after.size(); ++i) {
      telemetry_.counted.push_back(timeline::counted_between(before_[i], after[i]));
    }
    if (sampling_) {
      telemetry_.series = plant_.stop_telemetry();
      for (auto& series : telemetry_.series) {
        for (auto& reading : series) {
          reading.time_ns -= start_ns_;
        }
      }
    }
    return std::move(telemetry_);
  }

 private:
  conditions::ModelPlant& plant_;
  Nanoseconds start_ns_;
  std::vector<timeline::Counters> before_;
  bool sampling_;
  timeline::Telemetry telemetry_;
};

}  // namespace moevar::run
