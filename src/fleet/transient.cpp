#include "fleet/transient.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "fleet/transient_block.hpp"

namespace moevar::fleet {

namespace {

constexpr std::int64_t kStepNs = 5'000'000;
constexpr double kStepS = 1e-9 * kStepNs;
constexpr std::int64_t kControlSteps = 4;    // 20 ms, assumed: no source was found
constexpr std::int64_t kCeilingSteps = 200;  // 1 s, assumed
constexpr double kMostUpMhz = 60.0;          // a move of the regulator, assumed
constexpr double kMostDownMhz = 120.0;
constexpr double kHwReleaseC = 3.0;       // below t_op_c
constexpr double kCeilingReleaseC = 1.0;  // below t_op_c
constexpr double kLeakageReferenceC = 65.0;

const Activity& activity_of(std::span<const Activity> activity, std::size_t i) {
  return activity.size() == 1 ? activity[0] : activity[i];
}

}  // namespace

Transient::Transient(const GpuFamily& family, std::vector<GpuTraits> gpus)
    : family_(family),
      gpus_(std::move(gpus)),
      blocks_((gpus_.size() + kLanes - 1) / kLanes),
      cap_w_(family.cap_max_w),
      pending_(gpus_.size()) {
  const auto grid_index = [&](double mhz) {
    return static_cast<std::int32_t>(std::lround(mhz / family_.f_step_mhz));
  };
  const auto whole_steps = [](double ms) {
    return std::max<std::int64_t>(1, std::llround(1e-3 * ms / kStepS));
  };
  lowest_ = grid_index(family_.f_min_mhz);
  highest_ = grid_index(family_.f_max_mhz);
  window_steps_ = whole_steps(family_.sensor_window_ms);
  sensor_steps_ = whole_steps(family_.sensor_period_ms);
  if (window_steps_ > static_cast<std::int64_t>(kMostWindowSteps)) {
    throw InputError(fmt::format("{}: a power sensor that averages over {} ms; {} ms at most",
                                 family_.name, family_.sensor_window_ms,
                                 kMostWindowSteps * kStepNs / 1'000'000));
  }

  const double range = family_.f_max_mhz - family_.v_knee_mhz;
  for (std::int32_t index = 0; index <= highest_; ++index) {
    const double f = index * family_.f_step_mhz;
    const double x = std::max(0.0, (f - family_.v_knee_mhz) / range);
    const double v = voltage(family_, GpuTraits{}, f);
    const double v2_slope = 2.0 * v * family_.v_rise * family_.v_exponent *
                            std::pow(x, family_.v_exponent - 1.0) / range;
    grid_.push_back({v * v, f * v * v, v2_slope, v * v + f * v2_slope});
  }
  for (Block& block : blocks_) {
    block.clock.fill(highest_);  // lanes without a GPU too
    block.ceiling.fill(highest_);
  }
  for (std::size_t i = 0; i < gpus_.size(); ++i) {
    start(i);
  }
  set_neighbours({});
}

Transient::~Transient() = default;
Transient::Transient(const Transient&) = default;
Transient& Transient::operator=(const Transient&) = default;
Transient::Transient(Transient&&) noexcept = default;
Transient& Transient::operator=(Transient&&) noexcept = default;

void Transient::start(std::size_t i) {
  const auto [b, lane] = place_of(i);
  Block& block = blocks_[b];
  const GpuTraits& gpu = gpus_[i];
  const double volts = (1.0 + gpu.voltage_shift) * (1.0 + gpu.voltage_shift);
  block.gain[lane] = gpu.sensor_gain;
  block.base_w[lane] = family_.base_w * gpu.base;
  block.leakage_w[lane] = family_.leakage_w * gpu.leakage * volts;
  block.dynamic_w_mhz[lane] = family_.dynamic_w_mhz * gpu.dynamic * volts;

  // E4: heat capacities are the nominal GPU's, resistances its own
  const double r1 = family_.r1_share * family_.r_th_c_w;
  const double r2 = (1.0 - family_.r1_share) * family_.r_th_c_w;
  block.die_c_j[lane] = kStepS * r1 / family_.tau1_s;
  block.sink_c_j[lane] = kStepS * r2 / family_.tau2_s;
  block.die_w_c[lane] = 1.0 / (gpu.resistance * r1);
  block.sink_w_c[lane] = 1.0 / (gpu.resistance * r2);

  const double idle_w = settled_power_w(family_, gpu, {.level = 0.0}, family_.f_max_mhz);
  block.die_c[lane] = gpu.t_in_c + effective_resistance(family_, gpu) * idle_w;
  block.sink_c[lane] = block.die_c[lane] - idle_w / block.die_w_c[lane];
  block.power_w[lane] = idle_w;
  for (auto& row : block.window) {
    row[lane] = idle_w;
  }
  block.shown_w[lane] = gpu.sensor_gain * idle_w;
  linearise(block, lane);
}

double Transient::time_s() const noexcept {
  return 1e-9 * static_cast<double>(steps_ * kStepNs + pending_ns_);
}

void Transient::set_neighbours(std::span<const double> neighbour_w) {
  if (!neighbour_w.empty() && neighbour_w.size() != size()) {
    throw InputError(fmt::format("{} neighbours' powers for {} GPUs", neighbour_w.size(), size()));
  }
  neighbour_w_.assign(size(), std::numeric_limits<double>::quiet_NaN());
  std::ranges::copy(neighbour_w, neighbour_w_.begin());
  for (std::size_t i = 0; i < size(); ++i) {
    const auto [b, lane] = place_of(i);
    Block& block = blocks_[b];
    const double per_w = gpus_[i].slot_sign * family_.neighbour_c_w / 2.0;
    const bool outside = !std::isnan(neighbour_w_[i]);
    const bool alone = (i ^ 1U) >= size();
    block.inlet_c[lane] = gpus_[i].t_in_c + (outside ? per_w * neighbour_w_[i] : 0.0);
    block.partner_c_w[lane] = outside || alone ? 0.0 : per_w;
    block.own_c_w[lane] = !outside && alone ? per_w : 0.0;
  }
}

void Transient::set_hw_slowdown(std::size_t i, bool on) {
  const auto [b, lane] = place_of(i);
  blocks_[b].hw_slowdown[lane] = on;
  linearise(blocks_[b], lane);
}

void Transient::check_activity(std::span<const Activity> activity) const {
  if (activity.size() != 1 && activity.size() != size()) {
    throw InputError(fmt::format("{} activities for {} GPUs", activity.size(), size()));
  }
}

void Transient::advance(double seconds, std::span<const Activity> activity) {
  check_activity(activity);
  if (!(seconds >= 0.0) || !std::isfinite(seconds)) {
    throw InputError(fmt::format("{} s is no duration", seconds));
  }
  std::int64_t left_ns = std::llround(1e9 * seconds);
  const auto keep = [&](std::int64_t ns) {
    const double weight = static_cast<double>(ns) / static_cast<double>(pending_ns_ + ns);
    for (std::size_t i = 0; i < size(); ++i) {
      const Activity& now = activity_of(activity, i);
      Activity& mean = pending_[i];
      if (pending_ns_ == 0) {
        mean = now;
      } else {
        mean.level += weight * (now.level - mean.level);
        mean.memory_w += weight * (now.memory_w - mean.memory_w);
      }
    }
    pending_ns_ += ns;
    left_ns -= ns;
  };

  if (pending_ns_ > 0 && left_ns > 0) {
    keep(std::min(left_ns, kStepNs - pending_ns_));
    if (pending_ns_ == kStepNs) {
      pending_ns_ = 0;
      set_activity(pending_);
      integrate(1);
    }
  }
  if (left_ns >= kStepNs) {
    set_activity(activity);
    integrate(left_ns / kStepNs);
    left_ns %= kStepNs;
  }
  if (left_ns > 0) {
    keep(left_ns);
  }
}

void Transient::set_activity(std::span<const Activity> activity) {
  for (std::size_t i = 0; i < size(); ++i) {
    const auto [b, lane] = place_of(i);
    const Activity now =
        blocks_[b].failed[lane] ? Activity{.level = 0.0} : activity_of(activity, i);
    blocks_[b].level[lane] = now.level;
    blocks_[b].memory_w[lane] = now.memory_w;
  }
}

void Transient::integrate(std::int64_t steps) {
  for (Block& block : blocks_) {
    std::int64_t step = steps_;
    while (step < steps_ + steps) {
      const std::int64_t next =
          std::min({steps_ + steps, step - step % kControlSteps + kControlSteps,
                    step - step % sensor_steps_ + sensor_steps_});
      pass(block, step, next);
      step = next;
      const bool control = step % kControlSteps == 0;
      const bool show = step % sensor_steps_ == 0;
      if (control || show) {
        sense(block);
      }
      if (show) {
        block.shown_w = block.sensed_w;
      }
      if (control) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
          protect(block, lane, step % kCeilingSteps == 0);
          regulate(block, lane);
          linearise(block, lane);
        }
      }
    }
  }
  steps_ += steps;
}

/// Steps at unchanged clocks: E2, E3, E4.
void Transient::pass(Block& block, std::int64_t begin, std::int64_t end) const {
  Lanes& power = block.power_w;
  for (std::int64_t step = begin; step < end; ++step) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      power[l] = block.fixed_w[l] + block.slope_w_c[l] * block.die_c[l] +
                 block.level_w[l] * block.level[l] + block.memory_w[l];
      block.energy_mj[l] += (1e3 * kStepS) * power[l];
    }
    block.window[static_cast<std::size_t>(step % window_steps_)] = power;
    const auto heat = [&](std::size_t first, std::size_t partner) {
      for (std::size_t l = 0; l < kHalf; ++l) {
        const std::size_t own = first + l;
        const double air = block.inlet_c[own] + block.partner_c_w[own] * power[partner + l] +
                           block.own_c_w[own] * power[own];
        const double inner_w = (block.die_c[own] - block.sink_c[own]) * block.die_w_c[own];
        const double outer_w = (block.sink_c[own] - air) * block.sink_w_c[own];
        block.die_c[own] += block.die_c_j[own] * (power[own] - inner_w);
        block.sink_c[own] += block.sink_c_j[own] * (inner_w - outer_w);
      }
    };
    heat(0, kHalf);
    heat(kHalf, 0);
  }
  const auto steps = static_cast<double>(end - begin);
  for (std::size_t l = 0; l < kLanes; ++l) {
    block.clock_sum_mhz[l] += steps * block.clock_mhz[l];
  }
}

void Transient::sense(Block& block) const {
  Lanes sum{};
  for (std::int64_t row = 0; row < window_steps_; ++row) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      sum[l] += block.window[static_cast<std::size_t>(row)][l];
    }
  }
  const double share = 1.0 / static_cast<double>(window_steps_);
  for (std::size_t l = 0; l < kLanes; ++l) {
    block.sensed_w[l] = block.gain[l] * (sum[l] * share);
  }
}

/// Counts the reasons of the time since the last call; E6.
void Transient::protect(Block& block, std::size_t lane, bool ceiling_due) const {
  const auto one_if = [](bool on) { return on ? 1 : 0; };
  const std::uint64_t reasons = block.reasons[lane];
  block.sw_power_cap_n[lane] += one_if((reasons & timeline::reason::sw_power_cap) != 0);
  block.sw_thermal_n[lane] += one_if((reasons & timeline::reason::sw_thermal) != 0);
  block.hw_thermal_n[lane] += one_if(block.hw_thermal[lane]);

  const double die = block.die_c[lane];
  if (die > family_.t_hw_c) {
    block.hw_thermal[lane] = true;
    if (die > family_.t_shut_c) {
      block.failed[lane] = true;
      block.level[lane] = 0.0;
      block.memory_w[lane] = 0.0;
    }
  } else if (die < family_.t_op_c - kHwReleaseC) {
    block.hw_thermal[lane] = false;
  }
  if (ceiling_due) {
    std::int32_t& ceiling = block.ceiling[lane];
    if (die >= family_.t_op_c) {
      ceiling = std::max(lowest_, std::min(ceiling, block.clock[lane]) - 1);
    } else if (die < family_.t_op_c - kCeilingReleaseC) {
      ceiling = std::min(ceiling + 1, highest_);
    }
  }
}

/// E5.
void Transient::regulate(Block& block, std::size_t lane) const {
  const double spare_w = (1.0 - family_.margin) * cap_w_ - block.sensed_w[lane];
  const GridClock& grid = grid_[static_cast<std::size_t>(block.clock[lane])];
  const double slope = block.dynamic_w_mhz[lane] * block.level[lane] * grid.f_v2_slope +
                       block.hot_leakage_w[lane] * grid.v2_slope;
  const double most_up = kMostUpMhz / family_.f_step_mhz;
  const double most_down = kMostDownMhz / family_.f_step_mhz;
  const double wanted = spare_w / std::max(1e-9, family_.f_step_mhz * slope);
  const double move = std::clamp(wanted, -most_down, most_up);
  auto steps = static_cast<std::int32_t>(move);
  steps -= move < steps ? 1 : 0;
  if (spare_w >= 0.0) {
    steps = block.halved(lane) ? 0 : std::max(1, steps);
  }
  std::int32_t& clock = block.clock[lane];
  clock = std::clamp(clock + steps, lowest_, block.ceiling[lane]);

  const bool by_heat = spare_w >= 0.0 && clock == block.ceiling[lane] && clock < highest_;
  const bool by_cap = spare_w < 0.0 || (!by_heat && !block.halved(lane) && clock < highest_);
  block.reasons[lane] = static_cast<std::uint8_t>(
      block.level[lane] == 0.0 ? 0U
                               : (by_heat ? timeline::reason::sw_thermal : 0U) |
                                     (by_cap ? timeline::reason::sw_power_cap : 0U));
}

/// The running clock and, about the temperature of now, its power.
void Transient::linearise(Block& block, std::size_t lane) const {
  if (block.failed[lane]) {
    block.clock_mhz[lane] = 0.0;
    block.fixed_w[lane] = 0.0;
    block.slope_w_c[lane] = 0.0;
    block.level_w[lane] = 0.0;
    return;
  }
  const std::int32_t clock = block.halved(lane) ? block.clock[lane] / 2 : block.clock[lane];
  const GridClock& grid = grid_[static_cast<std::size_t>(clock)];
  const double theta = family_.theta_per_c;
  const double die = block.die_c[lane];
  block.hot_leakage_w[lane] = block.leakage_w[lane] * std::exp(theta * (die - kLeakageReferenceC));
  const double leakage = block.hot_leakage_w[lane] * grid.v2;
  block.clock_mhz[lane] = clock * family_.f_step_mhz;
  block.slope_w_c[lane] = theta * leakage;
  block.fixed_w[lane] = block.base_w[lane] + leakage * (1.0 - theta * die);
  block.level_w[lane] = block.dynamic_w_mhz[lane] * grid.f_v2;
}

void Transient::settle(std::span<const Activity> activity) {
  check_activity(activity);
  set_activity(activity);
  for (std::size_t i = 0; i < size(); ++i) {
    const auto [b, lane] = place_of(i);
    Block& block = blocks_[b];
    if (block.failed[lane]) {
      continue;
    }
    GpuTraits gpu = gpus_[i];
    if (!std::isnan(neighbour_w_[i])) {
      gpu.t_in_c = block.inlet_c[lane];
      gpu.slot_sign = 0;
    }
    const Activity& now = activity_of(activity, i);
    OperatingPoint point = solve_steady(family_, gpu, now, cap_w_);
    block.clock[lane] = static_cast<std::int32_t>(point.clock_mhz / family_.f_step_mhz);
    block.ceiling[lane] = point.limit == Limit::thermal ? block.clock[lane] : highest_;
    block.hw_thermal[lane] = false;
    if (block.hw_slowdown[lane]) {
      const std::int32_t half = block.clock[lane] / 2;
      point.clock_mhz = half * family_.f_step_mhz;
      point.power_w = settled_power_w(family_, gpu, now, point.clock_mhz);
      point.temperature_c = gpu.t_in_c + effective_resistance(family_, gpu) * point.power_w;
      point.limit = Limit::max_clock;
    }
    block.die_c[lane] = point.temperature_c;
    block.sink_c[lane] = point.temperature_c - point.power_w / block.die_w_c[lane];
    block.power_w[lane] = point.power_w;
    for (auto& row : block.window) {
      row[lane] = point.power_w;
    }
    block.shown_w[lane] = gpu.sensor_gain * point.power_w;
    block.reasons[lane] =
        static_cast<std::uint8_t>(now.level == 0.0 ? 0U : throttle_reasons(point.limit));
    linearise(block, lane);
  }
}

timeline::Reading Transient::reading(std::size_t i) const {
  const auto [b, lane] = place_of(i);
  const Block& block = blocks_[b];
  timeline::Reading now;
  now.time_ns = steps_ * kStepNs + pending_ns_;
  now.sm_clock_mhz = block.clock_mhz[lane];
  now.power_w = block.shown_w[lane];
  now.temperature_c = block.die_c[lane];
  now.throttle_reasons =
      (block.level[lane] == 0.0 ? timeline::reason::gpu_idle : block.reasons[lane]) |
      (block.halved(lane) ? timeline::reason::hw_slowdown : 0U) |
      (block.hw_thermal[lane] ? timeline::reason::hw_thermal : 0U);
  return now;
}

timeline::Counters Transient::counters(std::size_t i) const {
  const auto [b, lane] = place_of(i);
  const Block& block = blocks_[b];
  // a reason holds from one control step to the next
  const std::int64_t since = steps_ % kControlSteps;
  const auto ns = [&](std::int64_t controls, bool on) {
    return static_cast<double>((controls * kControlSteps + (on ? since : 0)) * kStepNs);
  };
  const std::uint64_t reasons = block.reasons[lane];
  return {
      .energy_mj = block.energy_mj[lane],
      .sw_power_cap_ns =
          ns(block.sw_power_cap_n[lane], (reasons & timeline::reason::sw_power_cap) != 0),
      .sw_thermal_ns = ns(block.sw_thermal_n[lane], (reasons & timeline::reason::sw_thermal) != 0),
      .hw_thermal_ns = ns(block.hw_thermal_n[lane], block.hw_thermal[lane])};
}

double Transient::power_w(std::size_t i) const {
  const auto [b, lane] = place_of(i);
  return blocks_[b].power_w[lane];
}

bool Transient::failed(std::size_t i) const {
  const auto [b, lane] = place_of(i);
  return blocks_[b].failed[lane];
}

double Transient::mean_clock_mhz(std::size_t i) const {
  const auto [b, lane] = place_of(i);
  const Block& block = blocks_[b];
  return steps_ == mark_ ? block.clock_mhz[lane]
                         : block.clock_sum_mhz[lane] / static_cast<double>(steps_ - mark_);
}

void Transient::mark() {
  mark_ = steps_;
  for (Block& block : blocks_) {
    block.clock_sum_mhz.fill(0.0);
  }
}

}  // namespace moevar::fleet
