#include "fleet/transient.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "fleet/model_fleet.hpp"

namespace moevar::fleet {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

const std::vector<Activity> kGemm{gemm_activity()};
const std::vector<Activity> kIdle{{.level = 0.0}};

GpuTraits nominal(const GpuFamily& family) { return {.t_in_c = family.t_in_c}; }

Transient one(const GpuFamily& family) { return {family, {nominal(family)}}; }

std::vector<GpuTraits> drawn(const GpuFamily& family, DeviceId n, std::uint64_t seed = 1) {
  std::vector<GpuTraits> gpus;
  for (DeviceId g = 0; g < n; ++g) {
    gpus.push_back(draw_gpu(family, {}, seed, g));
  }
  return gpus;
}

double error_percent(double found, double expected) { return 100 * (found / expected - 1.0); }

TEST(Transient, RestIsAFixedPoint) {
  for (const auto& family : gpu_families()) {
    auto gpus = one(family);
    const auto before = gpus.reading(0);
    EXPECT_EQ(before.sm_clock_mhz, family.f_max_mhz);
    EXPECT_EQ(before.throttle_reasons, timeline::reason::gpu_idle);
    gpus.advance(100.0, kIdle);
    const auto after = gpus.reading(0);
    EXPECT_EQ(after.sm_clock_mhz, family.f_max_mhz);
    EXPECT_NEAR(after.temperature_c, before.temperature_c, 1e-6) << family.name;
    EXPECT_NEAR(after.power_w, before.power_w, 1e-6) << family.name;
    EXPECT_EQ(after.throttle_reasons, timeline::reason::gpu_idle);
    EXPECT_EQ(gpus.counters(0).sw_power_cap_ns, 0.0);
  }
}

TEST(Transient, StepsOfAnyLengthAddUp) {
  const auto& family = find_family("h100-sxm5");
  Transient whole(family, drawn(family, 6));
  Transient parts(family, drawn(family, 6));
  const std::vector<Activity> work{{.level = 0.7, .memory_w = 20.0}};
  whole.advance(0.03, work);
  for (int i = 0; i < 10; ++i) {
    parts.advance(0.003, work);
  }
  EXPECT_EQ(parts.time_s(), whole.time_s());
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(parts.counters(i).energy_mj, whole.counters(i).energy_mj);
    EXPECT_EQ(parts.reading(i).temperature_c, whole.reading(i).temperature_c);
    EXPECT_EQ(parts.reading(i).sm_clock_mhz, whole.reading(i).sm_clock_mhz);
  }
  // a step shared by two activities does their mean: 2 ms of work in 5 ms
  auto shared = one(family);
  const double idle_w = shared.power_w(0);
  shared.advance(0.002, kGemm);
  shared.advance(0.003, kIdle);
  const double expected = power_w(family, nominal(family), {.level = 0.4}, family.f_max_mhz,
                                  one(family).reading(0).temperature_c);
  EXPECT_GT(shared.power_w(0), idle_w + 300.0);
  EXPECT_NEAR(shared.power_w(0), expected, 1e-3);
}

TEST(Transient, AFleetMayBeSplitAtEvenIndices) {
  const auto& family = find_family("v100-sxm2");
  const auto gpus = drawn(family, 150);
  const auto run = [&](std::size_t begin, std::size_t end) {
    Transient part(family, {gpus.begin() + static_cast<std::ptrdiff_t>(begin),
                            gpus.begin() + static_cast<std::ptrdiff_t>(end)});
    std::vector<Activity> work(end - begin);
    for (std::size_t i = begin; i < end; ++i) {
      work[i - begin].level = static_cast<double>(i % 3) / 2.0;
    }
    part.advance(30.0, work);
    return part;
  };
  const auto whole = run(0, 150);
  for (const auto& [begin, end] :
       std::vector<std::pair<std::size_t, std::size_t>>{{0, 2}, {2, 70}, {70, 150}}) {
    const auto part = run(begin, end);
    for (std::size_t i = begin; i < end; ++i) {
      EXPECT_EQ(part.counters(i - begin).energy_mj, whole.counters(i).energy_mj) << i;
      EXPECT_EQ(part.reading(i - begin).temperature_c, whole.reading(i).temperature_c) << i;
      EXPECT_EQ(part.mean_clock_mhz(i - begin), whole.mean_clock_mhz(i)) << i;
    }
  }
}

TEST(Transient, BadCallsAreRefused) {
  const auto& family = find_family("h100-sxm5");
  Transient gpus(family, drawn(family, 3));
  EXPECT_THROW(gpus.advance(1.0, std::vector<Activity>(2)), InputError);
  EXPECT_THROW(gpus.advance(-1.0, kGemm), InputError);
  EXPECT_THROW(gpus.advance(kNan, kGemm), InputError);
  EXPECT_THROW(gpus.settle(std::vector<Activity>(2)), InputError);
  EXPECT_THROW(gpus.set_neighbours(std::vector<double>(2, 100.0)), InputError);
  auto slow_sensor = family;
  slow_sensor.sensor_window_ms = 1000;
  EXPECT_THROW(one(slow_sensor), InputError);
}

TEST(Transient, AFleetSettlesWhereTheSolverSays) {
  const auto& family = find_family("h100-sxm5");
  const auto traits = drawn(family, 64);
  for (const double cap : {700.0, 500.0, 300.0}) {
    Transient gpus(family, traits);
    gpus.set_cap(cap);
    gpus.advance(200.0, kGemm);
    gpus.mark();
    gpus.advance(50.0, kGemm);
    double worst = 0.0;
    for (std::size_t i = 0; i < traits.size(); ++i) {
      const auto steady = solve_steady(family, traits[i], gemm_activity(), cap);
      if (steady.limit == Limit::power_cap) {
        const double error = error_percent(gpus.mean_clock_mhz(i), steady.clock_mhz);
        worst = std::abs(error) > std::abs(worst) ? error : worst;
      }
    }
    std::printf("64 H100 at %.0f W: worst clock %+.2f %% of the solver's\n", cap, worst);
    EXPECT_LE(std::abs(worst), 1.0) << cap;  // half a grid clock of 15 MHz is 1.3 % at 300 W
  }
}

TEST(Transient, SettleIsWhereWaitingLeads) {
  const auto& family = find_family("v100-sxm2");
  const auto traits = drawn(family, 10);  // 9 is badly cooled
  Transient gpus(family, traits);
  gpus.settle(kGemm);
  for (std::size_t i = 0; i < traits.size(); ++i) {
    const auto steady = solve_steady(family, traits[i], gemm_activity(), family.cap_max_w);
    const auto now = gpus.reading(i);
    EXPECT_EQ(now.sm_clock_mhz, sampled_clock_mhz(family, steady.clock_mhz)) << i;
    EXPECT_DOUBLE_EQ(now.temperature_c, steady.temperature_c) << i;
    EXPECT_DOUBLE_EQ(now.power_w, traits[i].sensor_gain * steady.power_w) << i;
    EXPECT_EQ(now.throttle_reasons, throttle_reasons(steady.limit)) << i;
  }
  EXPECT_EQ(gpus.time_s(), 0.0);
  gpus.advance(100.0, kGemm);
  for (std::size_t i = 0; i < traits.size(); ++i) {
    const auto steady = solve_steady(family, traits[i], gemm_activity(), family.cap_max_w);
    EXPECT_NEAR(gpus.reading(i).temperature_c, steady.temperature_c, 1.5) << i;
    EXPECT_NEAR(gpus.mean_clock_mhz(i), steady.clock_mhz, 0.01 * steady.clock_mhz) << i;
  }
}

TEST(Transient, NeighboursHeatTheAir) {
  const auto& family = find_family("v100-sxm2");
  auto upstream = nominal(family);
  auto downstream = nominal(family);
  upstream.slot_sign = -1;
  downstream.slot_sign = 1;
  const double per_w = family.neighbour_c_w / 2.0;
  const auto air_c = [&](const Transient& gpus, std::size_t i) {
    return gpus.reading(i).temperature_c - family.r_th_c_w * gpus.power_w(i);
  };
  const std::vector<Activity> only_first{{.level = 0.4}, {.level = 0.0}};
  // the partner at its own power, not at this GPU's
  Transient pair(family, {upstream, downstream});
  pair.advance(1000.0, only_first);
  EXPECT_GT(pair.power_w(0), pair.power_w(1) + 80.0);
  EXPECT_NEAR(air_c(pair, 1), family.t_in_c + per_w * pair.power_w(0), 1e-3);
  EXPECT_NEAR(air_c(pair, 0), family.t_in_c - per_w * pair.power_w(1), 1e-3);
  // one GPU alone: itself
  Transient alone(family, {downstream});
  alone.advance(1000.0, kIdle);
  EXPECT_NEAR(air_c(alone, 0), family.t_in_c + per_w * alone.power_w(0), 1e-3);
  // a phantom for one of the two
  pair.set_neighbours(std::vector<double>{kNan, 297.0});
  pair.advance(1000.0, only_first);
  EXPECT_NEAR(air_c(pair, 1), family.t_in_c + per_w * 297.0, 1e-3);
  EXPECT_NEAR(air_c(pair, 0), family.t_in_c - per_w * pair.power_w(1), 1e-3);
  pair.set_neighbours({});
  pair.advance(1000.0, only_first);
  EXPECT_NEAR(air_c(pair, 1), family.t_in_c + per_w * pair.power_w(0), 1e-3);
}

TEST(Transient, ReasonsInNanoseconds) {
  const auto& family = find_family("h100-sxm5");
  auto gpus = one(family);
  gpus.advance(10.0, kGemm);
  // from the regulator's first step to the end
  EXPECT_EQ(gpus.counters(0).sw_power_cap_ns, 10e9 - 20e6);
  EXPECT_EQ(gpus.reading(0).throttle_reasons, timeline::reason::sw_power_cap);
  gpus.advance(0.015, kGemm);
  EXPECT_EQ(gpus.counters(0).sw_power_cap_ns, 10e9 - 5e6);
  gpus.advance(0.005, kGemm);
  gpus.advance(10.0, kIdle);
  EXPECT_LE(gpus.counters(0).sw_power_cap_ns, 10e9 + 20e6);
  EXPECT_EQ(gpus.reading(0).throttle_reasons, timeline::reason::gpu_idle);
  // work that the cap does not reach has no reason
  auto light = one(family);
  light.advance(10.0, std::vector<Activity>{{.level = 0.3}});
  EXPECT_EQ(light.reading(0).throttle_reasons, 0U);
  EXPECT_EQ(light.counters(0).sw_power_cap_ns, 0.0);
  // a cap below what the lowest clock draws is violated, and said so
  auto floor = one(family);
  floor.set_cap(200.0);
  floor.advance(100.0, kGemm);
  EXPECT_EQ(floor.reading(0).sm_clock_mhz, family.f_min_mhz);
  EXPECT_GT(floor.power_w(0), 200.0);
  EXPECT_EQ(floor.reading(0).throttle_reasons, timeline::reason::sw_power_cap);
}

TEST(Transient, HardwareHalvesTheClockAndReleasesIt) {
  const auto& family = find_family("v100-sxm2");
  auto traits = nominal(family);
  traits.resistance = 2.4;  // heats faster than the ceiling falls
  Transient gpus(family, {traits});
  bool halved = false;
  bool released = false;
  double halved_from = 0.0;
  for (int step = 0; step < 20'000 && !released; ++step) {
    const double before = gpus.reading(0).sm_clock_mhz;
    gpus.advance(0.02, kGemm);
    const auto now = gpus.reading(0);
    const bool on = (now.throttle_reasons & timeline::reason::hw_thermal) != 0;
    if (on && !halved) {
      halved = true;
      halved_from = before;
      EXPECT_GT(now.temperature_c, family.t_hw_c);
      EXPECT_NE(now.throttle_reasons & timeline::reason::hw_slowdown, 0U);
    }
    if (on) {
      EXPECT_LE(now.sm_clock_mhz, halved_from / 2.0);
    }
    released = halved && !on;
    if (released) {
      EXPECT_LT(now.temperature_c, family.t_op_c - 3.0);
      EXPECT_GT(now.temperature_c, family.t_op_c - 4.0);
    }
  }
  EXPECT_TRUE(halved);
  EXPECT_TRUE(released);
  EXPECT_GT(gpus.counters(0).hw_thermal_ns, 0.0);
  EXPECT_FALSE(gpus.failed(0));
}

TEST(Transient, TooHotIsTheEnd) {
  const auto& family = find_family("v100-sxm2");
  auto traits = nominal(family);
  traits.resistance = 10.0;
  Transient gpus(family, {traits, nominal(family)});
  gpus.advance(500.0, kGemm);
  EXPECT_TRUE(gpus.failed(0));
  EXPECT_FALSE(gpus.failed(1));
  EXPECT_EQ(gpus.reading(0).sm_clock_mhz, 0.0);
  EXPECT_EQ(gpus.power_w(0), 0.0);
  EXPECT_EQ(gpus.reading(0).power_w, 0.0);
  gpus.advance(5000.0, kGemm);
  EXPECT_NEAR(gpus.reading(0).temperature_c, family.t_in_c, 1e-3);
  gpus.settle(kGemm);
  EXPECT_EQ(gpus.reading(0).sm_clock_mhz, 0.0);
}

}  // namespace
}  // namespace moevar::fleet
