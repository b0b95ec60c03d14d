#include "fleet/gpu_physics.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::fleet {
namespace {

GpuTraits nominal(const GpuFamily& family) { return {.t_in_c = family.t_in_c}; }

double clock_at(const GpuFamily& family, double cap_w, double level) {
  return solve_steady(family, nominal(family), {.level = level}, cap_w).clock_mhz;
}

TEST(GpuFamily, NamesAreTheContracts) {
  std::vector<std::string> names;
  for (const auto& family : gpu_families()) {
    names.emplace_back(family.name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"v100-sxm2", "a100-pcie", "a100-sxm4", "h100-sxm5",
                                             "h200-sxm", "mi300x"}));
}

TEST(GpuFamily, EveryParameterIsSet) {
  for (const auto& f : gpu_families()) {
    for (const double value : {f.f_max_mhz,        f.f_min_mhz,        f.f_step_mhz,
                               f.cap_min_w,        f.cap_max_w,        f.tdp_w,
                               f.v_knee_mhz,       f.v_rise,           f.v_exponent,
                               f.base_w,           f.leakage_w,        f.theta_per_c,
                               f.dynamic_w_mhz,    f.memory_pj_byte,   f.r_th_c_w,
                               f.t_in_c,           f.t_in_sd_c,        f.neighbour_c_w,
                               f.tau1_s,           f.tau2_s,           f.r1_share,
                               f.t_op_c,           f.t_hw_c,           f.t_shut_c,
                               f.sensor_window_ms, f.sensor_period_ms, f.margin,
                               f.peak_over_cap,    f.flop_per_clock,   f.memory_gb_s,
                               f.intra_gb_s,       f.inter_gb_s,       f.intra_latency_us,
                               f.inter_latency_us}) {
      EXPECT_GT(value, 0.0) << f.name;
    }
    EXPECT_LT(f.f_min_mhz, f.v_knee_mhz) << f.name;
    EXPECT_LT(f.v_knee_mhz, f.f_max_mhz) << f.name;
    EXPECT_LT(f.cap_min_w, f.cap_max_w) << f.name;
    EXPECT_LT(f.t_op_c, f.t_hw_c) << f.name;
    EXPECT_LT(f.t_hw_c, f.t_shut_c) << f.name;
    EXPECT_LE(f.intra_latency_us, f.inter_latency_us) << f.name;
  }
}

TEST(GpuFamily, UnknownPresetNamesThoseThatExist) {
  try {
    find_family("h100-sxm");
    FAIL() << "no error";
  } catch (const InputError& error) {
    EXPECT_STREQ(
        error.what(),
        "no GPU preset is named \"h100-sxm\"; nearest: \"h100-sxm5\"; there are v100-sxm2, "
        "a100-pcie, a100-sxm4, h100-sxm5, h200-sxm or mi300x");
  }
}

struct Regression {
  const char* family;
  double cap_w, clock_mhz, temperature_c;
  Limit limit = Limit::power_cap;
};

// Values of an independent implementation.
TEST(GpuPhysics, SteadyStateRegression) {
  for (const auto& expected :
       std::vector<Regression>{{"v100-sxm2", 300, 1364.42, 65.58},
                               {"v100-sxm2", 200, 1034.16, 51.72},
                               {"v100-sxm2", 150, 698.78, 44.79},
                               {"a100-pcie", 250, 1343.30, 57.18},
                               {"a100-pcie", 150, 1084.03, 44.30},
                               {"a100-sxm4", 400, 1227.74, 64.80},
                               {"a100-sxm4", 300, 1065.07, 54.85},
                               {"a100-sxm4", 200, 634.80, 44.90},
                               {"h100-sxm5", 700, 1492.38, 67.79},
                               {"h100-sxm5", 500, 1093.69, 55.85},
                               {"h100-sxm5", 300, 580.12, 43.91},
                               {"h100-sxm5", 200, 345.00, 38.48, Limit::floor},
                               {"mi300x", 1000, 1448.16, 82.72},
                               {"mi300x", 750, 1201.99, 69.04},
                               {"mi300x", 450, 664.66, 52.63}}) {
    const auto& family = find_family(expected.family);
    const auto point = solve_steady(family, nominal(family), gemm_activity(), expected.cap_w);
    SCOPED_TRACE(testing::Message() << expected.family << " at " << expected.cap_w << " W");
    EXPECT_NEAR(point.clock_mhz, expected.clock_mhz, 0.05);
    EXPECT_NEAR(point.temperature_c, expected.temperature_c, 0.02);
    EXPECT_EQ(point.limit, expected.limit);
  }
  const auto& h100 = find_family("h100-sxm5");
  EXPECT_NEAR(solve_steady(h100, nominal(h100), gemm_activity(), 200).power_w, 207.99, 0.01);
}

TEST(GpuPhysics, Vt1H100ClockAgainstCap) {
  const auto& family = find_family("h100-sxm5");
  const std::vector<double> published{625, 1132, 1501, 1731, 1889, 1969};
  double worst = 0.0;
  for (std::size_t i = 0; i < published.size(); ++i) {
    const double clock = clock_at(family, 200.0 + 100.0 * static_cast<double>(i), 0.513);
    const double error = clock / published[i] - 1.0;
    EXPECT_LT(std::abs(error), 0.02) << clock << " MHz, published " << published[i];
    worst = std::abs(error) > std::abs(worst) ? error : worst;
  }
  RecordProperty("worst_percent", std::to_string(100 * worst));
  std::printf("VT1 worst error %.2f %% (tolerance 2 %%)\n", 100 * worst);
}

/// E7 for work of which only its sensitivity to the clock is known: speed at each cap over that at
/// the last, against what was published, within `tolerance`.
void expect_training_speeds(const char* row, double level, double alpha,
                            const std::vector<double>& published, double tolerance) {
  const auto& family = find_family("h100-sxm5");
  const std::vector<double> caps{300, 400, 500, 600, 700};
  const double reference = clock_at(family, caps.back(), level);
  double worst = 0.0;
  for (std::size_t i = 0; i < caps.size(); ++i) {
    const double time = alpha * reference / clock_at(family, caps[i], level) + 1.0 - alpha;
    const double error = 1.0 / time / published[i] - 1.0;
    EXPECT_LE(std::abs(error), tolerance) << 1.0 / time << " at " << caps[i] << " W";
    worst = std::abs(error) > std::abs(worst) ? error : worst;
  }
  std::printf("%s worst error %.2f %% (tolerance %.0f %%)\n", row, 100 * worst, 100 * tolerance);
}

TEST(GpuPhysics, Vt2H100LlamaTrainingAgainstCap) {
  expect_training_speeds("VT2", 0.49, 0.98, {.594, .821, .915, .966, 1}, 0.05);
}

TEST(GpuPhysics, Vt3H100VitTrainingAgainstCap) {
  expect_training_speeds("VT3", 0.543, 0.50, {.702, .846, .915, .973, 1}, 0.02);
}

TEST(GpuPhysics, Vt4A100PcieSpeedAgainstCap) {
  const auto& family = find_family("a100-pcie");
  const std::vector<double> published{.771, .836, .889, .926, .958, .983, 1};
  double worst = 0.0;
  for (std::size_t i = 0; i < published.size(); ++i) {
    const double speed =
        clock_at(family, 150.0 + 25.0 * static_cast<double>(i), 1.0) / clock_at(family, 300.0, 1.0);
    EXPECT_NEAR(speed, published[i], 0.03 * published[i]);
    worst = std::max(worst, std::abs(speed / published[i] - 1.0));
  }
  std::printf("VT4 worst error %.2f %% (tolerance 3 %%)\n", 100 * worst);
}

TEST(GpuPhysics, Vt5A100PciePowerAtLockedClocks) {
  const auto& family = find_family("a100-pcie");
  double worst = 0.0;
  for (const auto& [clock, watts] : std::vector<std::pair<double, double>>{
           {1005, 134.8}, {1110, 152}, {1200, 179}, {1305, 224}}) {
    const double power = settled_power_w(family, nominal(family), gemm_activity(), clock);
    EXPECT_NEAR(power, watts, 0.03 * watts) << clock << " MHz";
    worst = std::max(worst, std::abs(power / watts - 1.0));
  }
  std::printf("VT5 worst error %.2f %% (tolerance 3 %%)\n", 100 * worst);
}

TEST(GpuPhysics, Vt6A100ZerosAgainstRandomData) {
  const auto& family = find_family("a100-sxm4");
  const double zeros = clock_at(family, 400, 0.57);
  const double random = clock_at(family, 400, 1.0);
  EXPECT_EQ(zeros, 1410.0);
  EXPECT_NEAR(random / zeros - 1.0, 1228.0 / 1410.0 - 1.0, 0.03);
  std::printf("VT6 zeros %.0f, random %.1f MHz (-13 %% +- 3 points)\n", zeros, random);
}

TEST(GpuPhysics, Vt9Mi300xToMi325x) {
  const auto& family = find_family("mi300x");
  EXPECT_NEAR(clock_at(family, 750, 1.0), 1207.0, 0.02 * 1207.0);
  EXPECT_NEAR(clock_at(family, 1000, 1.0), 1447.0, 0.02 * 1447.0);
  std::printf("VT9 %.0f and %.0f MHz (1207 and 1447 +- 2 %%)\n", clock_at(family, 750, 1.0),
              clock_at(family, 1000, 1.0));
}

TEST(GpuPhysics, Vt11WarmerAirSlowsTheH100) {
  const auto& family = find_family("h100-sxm5");
  const auto throughput_at = [&](double warmer_c) {
    auto gpu = nominal(family);
    gpu.t_in_c += warmer_c;
    return solve_steady(family, gpu, gemm_activity(), 700).clock_mhz;
  };
  const double lost = 1.0 - throughput_at(10) / throughput_at(0);
  EXPECT_GE(lost, 0.01);
  EXPECT_LE(lost, 0.02);
  std::printf("VT11 +10 C of air: %.2f %% of throughput (1 to 2 %%), +5 C: %.2f %%\n", -100 * lost,
              100 * (throughput_at(5) / throughput_at(0) - 1.0));
}

TEST(GpuPhysics, PowerRisesWithClockAndTemperature) {
  for (const auto& family : gpu_families()) {
    double before = 0.0;
    for (double clock = family.f_min_mhz; clock <= family.f_max_mhz; clock += family.f_step_mhz) {
      const double power = power_w(family, nominal(family), gemm_activity(), clock, 60.0);
      EXPECT_GT(power, before) << family.name << " at " << clock;
      before = power;
    }
    EXPECT_GT(power_w(family, nominal(family), gemm_activity(), 1000.0, 70.0),
              power_w(family, nominal(family), gemm_activity(), 1000.0, 60.0));
  }
}

TEST(GpuPhysics, LeakageSlopeAtTheCap) {
  const auto& v100 = find_family("v100-sxm2");
  const auto slope = [&](double t) {
    return power_w(v100, nominal(v100), gemm_activity(), 1364.42, t + 0.5) -
           power_w(v100, nominal(v100), gemm_activity(), 1364.42, t - 0.5);
  };
  EXPECT_NEAR(slope(65.58), 0.66, 0.01);
}

TEST(GpuPhysics, SensorThatReadsLowDrawsMore) {
  const auto& family = find_family("h100-sxm5");
  auto gpu = nominal(family);
  gpu.sensor_gain = 0.98;
  EXPECT_DOUBLE_EQ(regulated_power_w(family, gpu, 500), 500 * 0.995 / 0.98);
  EXPECT_GT(solve_steady(family, gpu, gemm_activity(), 500).clock_mhz, clock_at(family, 500, 1.0));
}

TEST(GpuPhysics, HotterThanAllowedAtTheLowestClockIsReportedSo) {
  const auto& family = find_family("v100-sxm2");
  auto gpu = nominal(family);
  gpu.resistance = 5.0;
  const auto point = solve_steady(family, gpu, gemm_activity(), 300);
  EXPECT_EQ(point.limit, Limit::thermal);
  EXPECT_EQ(point.clock_mhz, family.f_min_mhz);
  EXPECT_GT(point.temperature_c, family.t_op_c);
}

TEST(GpuPhysics, HeatOrdersDiesFromAmbientToSoaked) {
  const auto& family = find_family("h100-sxm5");
  auto downstream = nominal(family);
  downstream.slot_sign = 1;
  const auto at = [&](const GpuTraits& gpu, study::Heat heat) {
    return solve(family, gpu, gemm_activity(), 700, heat);
  };
  const auto ambient = at(downstream, study::Heat::ambient);
  const auto preheated = at(downstream, study::Heat::neighbours);
  const auto soaked = at(downstream, study::Heat::soaked);
  EXPECT_LT(ambient.temperature_c, preheated.temperature_c);
  EXPECT_LT(preheated.temperature_c, soaked.temperature_c);
  EXPECT_GT(ambient.clock_mhz, preheated.clock_mhz);
  EXPECT_GT(preheated.clock_mhz, soaked.clock_mhz);
  // neighbours heat the air by h times their power, and the die's own leakage a little more
  const double air = family.neighbour_c_w * soaked.power_w;
  EXPECT_NEAR(preheated.temperature_c - ambient.temperature_c, air, 0.1 * air);
  // idle H100: 71 to 111 W published
  const double idle_w = settled_power_w(family, nominal(family), {.level = 0.0}, 345);
  EXPECT_GT(idle_w, 71.0);
  EXPECT_LT(idle_w, 111.0);
  // an upstream GPU is not cooled by the one behind it
  auto upstream = nominal(family);
  upstream.slot_sign = -1;
  EXPECT_GE(at(upstream, study::Heat::neighbours).temperature_c,
            at(upstream, study::Heat::ambient).temperature_c);
  // without a neighbour the air is the room's
  EXPECT_EQ(at(nominal(family), study::Heat::ambient).temperature_c,
            at(nominal(family), study::Heat::neighbours).temperature_c);
}

TEST(GpuPhysics, ReasonsAndStates) {
  const auto& family = find_family("h100-sxm5");
  const auto gpu = nominal(family);
  const auto capped = device_state(family, gpu, gemm_activity(), {.power_cap_w = 500.0});
  EXPECT_EQ(capped.throttle_reasons, 0x4U);
  EXPECT_EQ(capped.cap.requested_w, 500.0);
  EXPECT_EQ(capped.cap.enforced_w, 500.0);
  EXPECT_TRUE(capped.steady);
  const auto own =
      device_state(family, gpu, gemm_activity(), {.power_cap_w = {}, .heat = study::Heat::ambient});
  EXPECT_TRUE(std::isnan(own.cap.requested_w));
  EXPECT_EQ(own.cap.enforced_w, 700.0);
  EXPECT_FALSE(own.steady);
  EXPECT_EQ(device_state(family, gpu, gemm_activity(), {.power_cap_w = 200.0}).throttle_reasons,
            0x4U)
      << "at the lowest clock, above the cap";
  EXPECT_EQ(throttle_reasons(Limit::thermal), 0x20U);
  EXPECT_EQ(throttle_reasons(Limit::max_clock), 0U);
  EXPECT_EQ(sampled_clock_mhz(family, 1492.38), 1485.0);
}

TEST(GpuPhysics, Vt12StreamingMemoryDoesNotSeeTheCap) {
  const auto time_at = [](const GpuFamily& family, double cap_w) {
    const auto point = solve_steady(family, nominal(family), memory_activity(family), cap_w);
    return kernel_time_ns(family, nominal(family), 1e10, 1e10, point.clock_mhz);
  };
  const auto& h100 = find_family("h100-sxm5");
  EXPECT_EQ(time_at(h100, 200), time_at(h100, 700));
  EXPECT_DOUBLE_EQ(time_at(h100, 200), 1e10 / (0.92 * 3350));
  // measured: 2 % at 150 W, where the model has no loss
  const auto& a100 = find_family("a100-pcie");
  const double lost = 1.0 - time_at(a100, 300) / time_at(a100, 150);
  EXPECT_GE(lost, 0.0);
  EXPECT_LE(lost, 0.02);
  std::printf("VT12 A100 stream at 150 W: -%.1f %% (-2 %% at most)\n", 100 * lost);
}

TEST(GpuPhysics, KernelTimeIsTheSlowerOfArithmeticAndMemory) {
  const auto& family = find_family("v100-sxm2");
  auto gpu = nominal(family);
  // the measured kernel: 2 * 25536^3 FLOP at 1363.4 MHz took 2.436 s
  EXPECT_NEAR(kernel_time_ns(family, gpu, 2.0 * std::pow(25536.0, 3), 0.0, 1363.4), 2.436e9, 2e5);
  EXPECT_DOUBLE_EQ(kernel_time_ns(family, gpu, 1.0, 828e9, 1000.0), 1e9);
  gpu.slow_factor = 1.5;
  EXPECT_DOUBLE_EQ(kernel_time_ns(family, gpu, 1.0, 828e9, 1000.0), 1.5e9);
}

}  // namespace
}  // namespace moevar::fleet
