#pragma once

#include <cstdint>

#include "fleet/gpu_family.hpp"
#include "study/study.hpp"
#include "timeline/timeline.hpp"

/// A modelled GPU in steady state: DVFS, power cap, leakage and heat solved together. Pure
/// functions; any rank may call them. The equations' numbers E1 ... E8 are named where they are
/// computed.
namespace moevar::fleet {

/// What sets one GPU apart from the nominal one of its family, which is GpuTraits{} with the
/// family's t_in_c.
struct GpuTraits {
  double sensor_gain = 1.0;    ///< power reading / true power
  double voltage_shift = 0.0;  ///< dV, relative
  double leakage = 1.0;        ///< lambda, factor
  double dynamic = 1.0;        ///< k_c, factor
  double base = 1.0;           ///< p_0, factor
  double resistance = 1.0;     ///< rho, factor of r_th; bad cooling included
  double t_in_c = 25.0;        ///< its inlet air
  int slot_sign = 0;           ///< s: -1 upstream, +1 downstream of its neighbour, 0 neither
  double slow_factor = 1.0;    ///< fail-slow: kernel times are multiplied by it
  double noise_sd = 0.0;       ///< sigma_n: run-to-run spread of a kernel time, relative
};

/// What runs on the device, as far as power is concerned.
struct Activity {
  double level = 1.0;     ///< a: switching relative to the family's reference kernel
  double memory_w = 0.0;  ///< P_mem: memory traffic above the reference kernel's
};

/// A dense GEMM: the reference kernel itself.
Activity gemm_activity() noexcept;
/// A kernel that streams memory at full bandwidth. Level 0.25 assumed, of 0.2 to 0.35.
Activity memory_activity(const GpuFamily& family) noexcept;

enum class Limit {
  max_clock,  ///< nothing limits: highest clock
  power_cap,  ///< on the cap
  thermal,    ///< on the operating temperature
  floor,      ///< lowest clock, power above the cap
};

/// Where a GPU settles.
struct OperatingPoint {
  double clock_mhz = 0.0;      ///< mean sustained clock, between grid clocks
  double power_w = 0.0;        ///< true power
  double temperature_c = 0.0;  ///< die
  Limit limit = Limit::max_clock;
};

/// E1: relative to the family's lowest voltage.
double voltage(const GpuFamily& family, const GpuTraits& gpu, double clock_mhz) noexcept;

/// E2.
double power_w(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
               double clock_mhz, double temperature_c) noexcept;

/// E5: true power at which the regulator, with this GPU's sensor, holds a cap.
double regulated_power_w(const GpuFamily& family, const GpuTraits& gpu, double cap_w) noexcept;

/// E3, E4 in steady state: °C per watt from inlet air to die, the neighbour drawing the same power.
double effective_resistance(const GpuFamily& family, const GpuTraits& gpu) noexcept;

/// Power at a fixed clock once the temperature has settled.
double settled_power_w(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                       double clock_mhz) noexcept;

/// The highest clock, within the family's range, whose power at that temperature is no more than
/// `limit_w`; the lowest clock where none is.
double clock_for_power(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                       double temperature_c, double limit_w) noexcept;

/// What a cap allows at a given die temperature (E1, E2, E5).
OperatingPoint solve_at(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                        double cap_w, double temperature_c) noexcept;

/// Clock, power and temperature in thermal steady state under a cap (E1 ... E6).
OperatingPoint solve_steady(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                            double cap_w) noexcept;

/// The same under a heat condition:
///   soaked      thermal steady state, solve_steady();
///   ambient     the die is still where idling (lowest clock, no switching) leaves it, and the
///               clock is what the cap allows at that temperature: work just begun;
///   neighbours  as ambient, in air that the neighbour has heated by working steadily: a downstream
///               GPU's inlet rises by h times the neighbour's power, taken to be this GPU's own
///               steady one as in E3; an upstream GPU's stays as it is.
OperatingPoint solve(const GpuFamily& family, const GpuTraits& gpu, const Activity& activity,
                     double cap_w, study::Heat heat) noexcept;

/// E7: a kernel's time without noise. `flops` counts padded rows.
double kernel_time_ns(const GpuFamily& family, const GpuTraits& gpu, double flops, double bytes,
                      double clock_mhz) noexcept;

/// E8: NVML's clocks-event bits for what limits the clock.
std::uint64_t throttle_reasons(Limit limit) noexcept;

/// The clock that a sample shows: the grid clock below.
double sampled_clock_mhz(const GpuFamily& family, double clock_mhz) noexcept;

/// The GPU's state under a condition; without a cap the family's default holds. The cap is taken as
/// it is: whether the family accepts it is the caller's to check.
timeline::DeviceState device_state(const GpuFamily& family, const GpuTraits& gpu,
                                   const Activity& activity, const study::Condition& condition);

}  // namespace moevar::fleet
