#include "conditions/heat.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/error.hpp"
#include "system/mpi.hpp"

namespace moevar::conditions {

namespace {

constexpr double kHoldC = 1.0;

Burn burn_for(study::Heat heat) {
  switch (heat) {
    case study::Heat::soaked:
      return Burn::fleet;
    case study::Heat::neighbours:
      return Burn::neighbours;
    case study::Heat::ambient:
      break;
  }
  return Burn::nobody;
}

double seconds_of(const timeline::Reading& reading) {
  return 1e-9 * static_cast<double>(reading.time_ns);
}

/// The fleet's latest reading: devices of other nodes may have been read a little earlier.
double latest_s(std::span<const timeline::Reading> fleet) {
  return seconds_of(*std::ranges::max_element(fleet, {}, &timeline::Reading::time_ns));
}

}  // namespace

void SteadyWindow::add(std::span<const timeline::Reading> fleet) {
  Moment moment;
  moment.time_s = latest_s(fleet);
  for (const auto& reading : fleet) {
    moment.temperature_c.push_back(reading.temperature_c);
    moment.sm_clock_mhz.push_back(reading.sm_clock_mhz);
  }
  moments_.push_back(std::move(moment));
  // the oldest goes once what is left still fills the window
  while (moments_.size() > 2 && moments_.back().time_s - moments_[1].time_s >= options_.window_s) {
    moments_.erase(moments_.begin());
  }
}

std::vector<Verdict> SteadyWindow::judge() const {
  std::vector<Verdict> verdicts(moments_.empty() ? 0 : moments_.front().temperature_c.size());
  if (moments_.size() < 2 || moments_.back().time_s - moments_.front().time_s < options_.window_s) {
    return verdicts;
  }
  for (std::size_t device = 0; device < verdicts.size(); ++device) {
    verdicts[device] = judge(device);
  }
  return verdicts;
}

Verdict SteadyWindow::judge(std::size_t device) const {
  const auto count = static_cast<double>(moments_.size());
  double mean_s = 0.0;
  double mean_c = 0.0;
  for (const auto& moment : moments_) {
    mean_s += moment.time_s / count;
    mean_c += moment.temperature_c[device] / count;
  }
  double covariance = 0.0;
  double variance = 0.0;
  std::array<double, 2> half_mhz{};
  std::array<double, 2> half_count{};
  for (const auto& moment : moments_) {
    const double s = moment.time_s - mean_s;
    covariance += s * (moment.temperature_c[device] - mean_c);
    variance += s * s;
    const std::size_t half = s < 0.0 ? 0 : 1;
    half_mhz.at(half) += moment.sm_clock_mhz[device];
    half_count.at(half) += 1.0;
  }
  constexpr double kSecondsPerMinute = 60.0;
  Verdict verdict;
  verdict.slope_c_min = kSecondsPerMinute * covariance / variance;
  const double first = half_mhz[0] / half_count[0];
  const double second = half_mhz[1] / half_count[1];
  // comparisons with NaN are false: what could not be read is not steady
  verdict.steady = std::abs(verdict.slope_c_min) < options_.slope_c_min &&
                   std::abs(second - first) <= options_.clock_change * first;
  return verdict;
}

bool HeatReport::steady() const { return std::ranges::all_of(devices, &Verdict::steady); }

HeatReport bring_to(Plant& plant, study::Heat heat, const HeatOptions& options) {
  SteadyWindow window(options);
  auto readings = plant.read();
  if (std::ranges::any_of(readings, [](const auto& r) { return std::isnan(r.temperature_c); })) {
    // all ranks have read the same
    throw mpi::SharedError(ExitStatus::environment,
                           "a device shows no temperature, so no thermal state can be brought "
                           "about or seen");
  }
  const double start_s = latest_s(readings);
  window.add(readings);
  HeatReport report;
  report.window_s = options.window_s;
  do {
    plant.work(options.poll_s(), burn_for(heat));
    readings = plant.read();
    window.add(readings);
    report.devices = window.judge();
    report.seconds = latest_s(readings) - start_s;
  } while (!report.steady() && report.seconds < options.limit_s);
  return report;
}

double hold(Plant& plant, study::Heat heat, std::span<const double> plateau_c,
            const HeatOptions& options) {
  const auto left = [&](const std::vector<timeline::Reading>& readings) {
    bool any = false;
    for (std::size_t device = 0; device < readings.size(); ++device) {
      const double above_c = readings[device].temperature_c - plateau_c[device];
      any = any || (heat == study::Heat::soaked ? above_c < -kHoldC : above_c > kHoldC);
    }
    return any;
  };
  auto readings = plant.read();
  const double start_s = latest_s(readings);
  double seconds = 0.0;
  while (left(readings) && seconds < options.limit_s) {
    plant.work(std::min(1.0, options.poll_s()), burn_for(heat));
    readings = plant.read();
    seconds = latest_s(readings) - start_s;
  }
  return seconds;
}

}  // namespace moevar::conditions
