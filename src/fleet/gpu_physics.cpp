#include "fleet/gpu_physics.hpp"

#include <algorithm>
#include <cmath>

namespace moevar::fleet {

namespace {

constexpr double kLeakageReferenceC = 65.0;
constexpr int kBisections = 40;
constexpr int kPowerIterations = 60;

Limit limit_of(const GpuFamily& family, double clock_mhz, double power, double target_w) {
  if (clock_mhz >= family.f_max_mhz) {
    return Limit::max_clock;
  }
  return clock_mhz <= family.f_min_mhz && power > target_w ? Limit::floor : Limit::power_cap;
}

double idle_temperature(const GpuFamily& family, const GpuTraits& gpu) {
  const double idle_w = settled_power_w(family, gpu, Activity{.level = 0.0}, family.f_min_mhz);
  return gpu.t_in_c + effective_resistance(family, gpu) * idle_w;
}

}  // namespace

Activity gemm_activity() noexcept { return {}; }

Activity memory_activity(const GpuFamily& family) noexcept {
  return {.level = 0.25, .memory_w = 1e-3 * family.memory_pj_byte * family.memory_gb_s};
}

double voltage(const GpuFamily& family, const GpuTraits& gpu, double clock_mhz) noexcept {
  const double above_knee =
      (clock_mhz - family.v_knee_mhz) / (family.f_max_mhz - family.v_knee_mhz);
  const double rise =
      above_knee > 0.0 ? family.v_rise * std::pow(above_knee, family.v_exponent) : 0.0;
  return (1.0 + gpu.voltage_shift) * (1.0 + rise);
}

double power_w(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
               double clock_mhz, double temperature_c) noexcept {
  const double v = voltage(family, gpu, clock_mhz);
  const double base = family.base_w * gpu.base + activity.memory_w;
  const double leakage = family.leakage_w * gpu.leakage * v * v *
                         std::exp(family.theta_per_c * (temperature_c - kLeakageReferenceC));
  const double dynamic = family.dynamic_w_mhz * gpu.dynamic * activity.level * clock_mhz * v * v;
  return base + leakage + dynamic;
}

double regulated_power_w(const GpuFamily& family, const GpuTraits& gpu, double cap_w) noexcept {
  return cap_w * (1.0 - family.margin) / gpu.sensor_gain;
}

double effective_resistance(const GpuFamily& family, const GpuTraits& gpu) noexcept {
  return gpu.resistance * family.r_th_c_w + gpu.slot_sign * family.neighbour_c_w / 2.0;
}

double settled_power_w(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                       double clock_mhz) noexcept {
  const double resistance = effective_resistance(family, gpu);
  double power = family.tdp_w;
  for (int i = 0; i < kPowerIterations; ++i) {
    const double temperature = std::min(gpu.t_in_c + resistance * power, family.t_shut_c);
    power = 0.5 * power + 0.5 * power_w(family, gpu, activity, clock_mhz, temperature);
  }
  return power;
}

double clock_for_power(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                       double temperature_c, double limit_w) noexcept {
  const auto power_at = [&](double clock) {
    return power_w(family, gpu, activity, clock, temperature_c);
  };
  if (power_at(family.f_max_mhz) <= limit_w) {
    return family.f_max_mhz;
  }
  if (power_at(family.f_min_mhz) > limit_w) {
    return family.f_min_mhz;
  }
  double low = family.f_min_mhz;
  double high = family.f_max_mhz;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2.0;
    (power_at(middle) <= limit_w ? low : high) = middle;
  }
  return low;
}

OperatingPoint solve_at(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                        double cap_w, double temperature_c) noexcept {
  const double target_w = regulated_power_w(family, gpu, cap_w);
  const double clock = clock_for_power(family, gpu, activity, temperature_c, target_w);
  const double power = power_w(family, gpu, activity, clock, temperature_c);
  return {clock, power, temperature_c, limit_of(family, clock, power, target_w)};
}

OperatingPoint solve_steady(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                            double cap_w) noexcept {
  const double target_w = regulated_power_w(family, gpu, cap_w);
  const double resistance = effective_resistance(family, gpu);
  const double capped_c = gpu.t_in_c + resistance * target_w;

  OperatingPoint point = solve_at(family, gpu, activity, cap_w, capped_c);
  point.power_w = point.limit == Limit::power_cap
                      ? target_w
                      : settled_power_w(family, gpu, activity, point.clock_mhz);
  point.temperature_c = gpu.t_in_c + resistance * point.power_w;

  if (point.temperature_c > family.t_op_c) {
    const double cooled_w = (family.t_op_c - gpu.t_in_c) / resistance;
    point.clock_mhz = clock_for_power(family, gpu, activity, family.t_op_c, cooled_w);
    point.limit = Limit::thermal;
    const bool too_hot_at_floor = point.clock_mhz <= family.f_min_mhz;
    point.power_w =
        too_hot_at_floor ? settled_power_w(family, gpu, activity, point.clock_mhz) : cooled_w;
    point.temperature_c =
        too_hot_at_floor ? gpu.t_in_c + resistance * point.power_w : family.t_op_c;
  }
  return point;
}

OperatingPoint solve(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                     double cap_w, study::Heat heat) noexcept {
  const OperatingPoint steady = solve_steady(family, gpu, activity, cap_w);
  if (heat == study::Heat::soaked) {
    return steady;
  }
  GpuTraits cool = gpu;
  if (heat == study::Heat::neighbours) {
    // only the downstream GPU breathes what its neighbour has heated
    cool.t_in_c += std::max(gpu.slot_sign, 0) * family.neighbour_c_w * steady.power_w;
    cool.slot_sign = 0;
  }
  return solve_at(family, gpu, activity, cap_w, idle_temperature(family, cool));
}

double kernel_time_ns(const GpuFamily& family, const GpuTraits& gpu, double flops, double bytes,
                      double clock_mhz) noexcept {
  const double compute_ns = flops * 1e3 / (family.flop_per_clock * clock_mhz);
  const double memory_ns = bytes / family.memory_gb_s;
  return std::max(compute_ns, memory_ns) * gpu.slow_factor;
}

std::uint64_t throttle_reasons(Limit limit) noexcept {
  switch (limit) {
    case Limit::power_cap:
    case Limit::floor:
      return timeline::reason::sw_power_cap;
    case Limit::thermal:
      return timeline::reason::sw_thermal;
    case Limit::max_clock:
      break;
  }
  return 0;
}

double sampled_clock_mhz(const GpuFamily& family, double clock_mhz) noexcept {
  return std::floor(clock_mhz / family.f_step_mhz) * family.f_step_mhz;
}

timeline::DeviceState device_state(const GpuFamily& family, const GpuTraits& gpu,
                                   const Activity& activity, const study::Condition& condition) {
  const double cap_w = condition.power_cap_w.value_or(family.cap_max_w);
  const OperatingPoint point = solve(family, gpu, activity, cap_w, condition.heat);
  timeline::DeviceState state;
  state.cap = {.requested_w = condition.power_cap_w.value_or(timeline::kUnknown),
               .enforced_w = cap_w,
               .default_w = family.cap_max_w,
               .min_w = family.cap_min_w,
               .max_w = family.cap_max_w};
  state.sm_clock_mhz = point.clock_mhz;
  state.power_w = point.power_w;
  state.temperature_c = point.temperature_c;
  state.throttle_reasons = throttle_reasons(point.limit);
  state.steady = condition.heat == study::Heat::soaked;
  return state;
}

}  // namespace moevar::fleet
