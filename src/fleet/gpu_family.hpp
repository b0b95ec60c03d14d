#pragma once

#include <span>
#include <string_view>

namespace moevar::fleet {

/// What all GPUs of one product have in common: every parameter of the modelled GPU's equations
/// (gpu_physics.hpp) and of its links. Units are in the names; the values and how well each is
/// known are in gpu_family.cpp.
struct GpuFamily {
  std::string_view name;  ///< the preset's name

  double f_max_mhz = 0.0;  ///< SM clock
  double f_min_mhz = 0.0;
  double f_step_mhz = 0.0;  ///< grid of the clocks that a sample shows

  double cap_min_w = 0.0;  ///< power caps that the device takes
  double cap_max_w = 0.0;  ///< also its default
  double tdp_w = 0.0;      ///< where the power iteration starts

  /// E1, voltage relative to its minimum: 1 + v_rise * x^v_exponent, x from v_knee_mhz to f_max.
  double v_knee_mhz = 0.0;
  double v_rise = 0.0;
  double v_exponent = 0.0;

  /// E2, power.
  double base_w = 0.0;          ///< P0: board, idle memory, fabric
  double leakage_w = 0.0;       ///< L0: at the lowest voltage and 65 °C
  double theta_per_c = 0.0;     ///< leakage grows with exp(theta T)
  double dynamic_w_mhz = 0.0;   ///< k: of the family's reference kernel, a dense GEMM
  double memory_pj_byte = 0.0;  ///< e_B: traffic above the reference kernel's

  /// E3, E4, heat. `tau1_s`, `tau2_s` and `r1_share` belong to the transient.
  double r_th_c_w = 0.0;       ///< die to inlet air
  double t_in_c = 0.0;         ///< inlet air, mean over nodes
  double t_in_sd_c = 0.0;      ///< ... its spread over GPUs
  double neighbour_c_w = 0.0;  ///< h: downstream air minus upstream air per watt
  double tau1_s = 0.0;         ///< die
  double tau2_s = 0.0;         ///< heat sink
  double r1_share = 0.0;       ///< x: part of r_th between die and heat sink
  double t_op_c = 0.0;         ///< held by lowering the clock
  double t_hw_c = 0.0;         ///< clock is halved
  double t_shut_c = 0.0;       ///< off

  /// E5, the power regulator and its sensor.
  double sensor_window_ms = 0.0;  ///< W, the sensor averages over it
  double sensor_period_ms = 0.0;  ///< T_s, readers see a new value
  double margin = 0.0;            ///< m: the regulator drives to (1 - m) cap
  double peak_over_cap = 0.0;     ///< typical highest power sample over the cap, relative

  /// E7, speed.
  double flop_per_clock = 0.0;  ///< phi: effective, efficiency included
  double memory_gb_s = 0.0;     ///< device memory bandwidth in hand

  /// All-to-all over nodes of 8, per device and direction.
  double intra_gb_s = 0.0;
  double inter_gb_s = 0.0;
  double intra_latency_us = 0.0;  ///< of a whole exchange inside one node
  double inter_latency_us = 0.0;  ///< ... over several nodes
};

/// Every preset.
std::span<const GpuFamily> gpu_families() noexcept;

/// Throws InputError that names the nearest preset, and all, when there is none of that name.
const GpuFamily& find_family(std::string_view name);

}  // namespace moevar::fleet
