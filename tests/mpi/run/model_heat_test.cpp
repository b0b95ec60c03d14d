// The model in time: what a phase sees of heat, and what it records.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "model_case.hpp"

namespace moevar::run {
namespace {

using study::Heat;

constexpr std::size_t kManySteps = 40;

double seconds_of(const PhaseResult& result) {
  Nanoseconds total = 0;
  for (const Nanoseconds layer : result.totals.layer_ns.flat()) {
    total += layer;
  }
  return 1e-9 * static_cast<double>(total);
}

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(ModelHeat, ANodeOf8SaysWhenItIsSoaked) {
  const auto world = mpi::Communicator::world();
  Case one(world, 8, 8, {}, 1, {});
  for (const double cap : {700.0, 500.0, 300.0}) {
    one.backend.enter({cap, Heat::soaked});
    const auto state = one.backend.settle();
    EXPECT_EQ(state.window_s, 60.0);
    // the heat sink's time constant is 38 s, and a window fits in once the slope is under 1 °C/min
    EXPECT_GT(state.heat_s, 120.0);
    EXPECT_LT(state.heat_s, 300.0);
    double worst = 0.0;
    for (const auto& device : state.devices) {
      EXPECT_TRUE(device.steady);
      worst = std::max(worst, std::abs(device.slope_c_min));
    }
    EXPECT_LT(worst, 1.0);
    EXPECT_GT(worst, 0.0);
    if (world.is_root()) {
      std::printf("8 H100 at %.0f W: steady after %.0f s, steepest slope %.2f degC/min\n", cap,
                  state.heat_s, worst);
    }
  }
}

TEST(ModelHeat, TheLimitComesFirst) {
  const auto world = mpi::Communicator::world();
  Case one(world, 8, 8, {}, 1, {.limit_s = 20.0}, 0.0, kManySteps);
  one.backend.enter({700.0, Heat::soaked});
  const auto state = one.backend.settle();
  EXPECT_GE(state.heat_s, 20.0);
  EXPECT_LT(state.heat_s, 22.5);
  Case soaked(world, 8, 8, {}, 1, {}, 0.0, kManySteps);
  soaked.backend.enter({700.0, Heat::soaked});
  const auto hot = soaked.backend.settle();
  for (std::size_t g = 0; g < 8; ++g) {
    EXPECT_FALSE(state.devices[g].steady);
    EXPECT_LT(state.devices[g].temperature_c, hot.devices[g].temperature_c - 3.0);
    EXPECT_GT(state.devices[g].sm_clock_mhz, hot.devices[g].sm_clock_mhz);
  }
  EXPECT_LT(seconds_of(one.run()), seconds_of(soaked.run())) << "cooler is faster";
}

TEST(ModelHeat, ColdGpusWarmUpStepByStep) {
  const auto world = mpi::Communicator::world();
  constexpr std::size_t kFiveSeconds = 400;
  Case one(world, 8, 8, {}, 1, {}, 0.0, kFiveSeconds);
  std::ranges::fill(one.loads.flat(), 60'000U);
  one.backend.enter({500.0, Heat::ambient});
  const auto state = one.backend.settle();
  const auto result = one.run();
  const auto& telemetry = result.telemetry;
  for (std::size_t d = 0; d < result.mine.devices(); ++d) {
    const auto g = d + static_cast<std::size_t>(one.backend.mine().begin);
    const auto celsius = telemetry.step_temperature_c.row(d);
    EXPECT_TRUE(std::ranges::is_sorted(celsius));
    EXPECT_GT(celsius.front(), state.devices[g].temperature_c);
    // the die over its heat sink alone: 0.4 R (500 W - idle) = 9.8 °C, time constant 2 s
    EXPECT_GT(celsius.back(), celsius.front() + 5.0);
    // the regulator has the clock within 0.2 s; from then on it follows the warming die
    const auto clocks = telemetry.step_sm_clock_mhz.row(d);
    const auto early = mean_of(clocks.subspan(20, 20));
    const auto late = mean_of(clocks.last(20));
    EXPECT_LT(late, early);
    EXPECT_NEAR(early / state.devices[g].sm_clock_mhz, 1.0, 0.02);
    for (const auto reasons : telemetry.step_throttle_reasons.row(d).subspan(20)) {
      EXPECT_TRUE(reasons & timeline::reason::sw_power_cap);
    }
    const auto& counted = telemetry.counted[d];
    EXPECT_GT(counted.sw_power_cap_ns, 0.9e9 * seconds_of(result));
    EXPECT_NEAR(1e-3 * counted.energy_mj / seconds_of(result) / 500.0, 1.0, 0.1);
  }
  EXPECT_LT(result.totals.layer_ns(25, 0), result.totals.layer_ns(kFiveSeconds - 1, 0));
}

TEST(ModelHeat, EveryPhaseBeginsWhereTheConditionLeftOff) {
  const auto world = mpi::Communicator::world();
  Case one(world, 8, 8, {}, 1, {});
  one.backend.enter({500.0, Heat::ambient});
  (void)one.backend.settle();
  const auto first = one.run();
  const auto warmer = one.run();
  EXPECT_NE(first.totals.layer_ns, warmer.totals.layer_ns);
  (void)one.backend.settle();
  EXPECT_EQ(first.totals.layer_ns, one.run().totals.layer_ns);
}

// 13 and 70 devices on 2 and 4 ranks cut pairs of neighbours in two.
TEST(ModelHeat, SameAtAnyNumberOfRanks) {
  const auto world = mpi::Communicator::world();
  const auto alone = world.split(world.rank());
  for (const int devices : {3, 13, 70}) {
    for (const auto heat : {Heat::soaked, Heat::ambient, Heat::neighbours}) {
      SCOPED_TRACE(testing::Message() << devices << " devices, " << study::to_string(heat));
      Case shared(world, devices, devices, {}, 1, {}, 100.0);
      Case whole(alone, devices, devices, {}, 1, {}, 100.0);
      shared.backend.enter({600.0, heat});
      whole.backend.enter({600.0, heat});
      EXPECT_EQ(shared.backend.settle().heat_s, whole.backend.settle().heat_s);
      const auto part = shared.run();
      const auto all = whole.run();
      EXPECT_EQ(part.totals.layer_ns, all.totals.layer_ns);
      const auto first = static_cast<std::size_t>(shared.backend.mine().begin);
      for (std::size_t d = 0; d < part.mine.devices(); ++d) {
        EXPECT_TRUE(std::ranges::equal(part.telemetry.step_temperature_c.row(d),
                                       all.telemetry.step_temperature_c.row(first + d)));
        EXPECT_TRUE(std::ranges::equal(part.telemetry.step_sm_clock_mhz.row(d),
                                       all.telemetry.step_sm_clock_mhz.row(first + d)));
        EXPECT_EQ(part.telemetry.counted[d].energy_mj, all.telemetry.counted[first + d].energy_mj);
        EXPECT_TRUE(std::ranges::equal(part.telemetry.series[d], all.telemetry.series[first + d],
                                       {}, &timeline::Reading::power_w,
                                       &timeline::Reading::power_w));
      }
    }
  }
}

TEST(ModelHeat, NeighboursHeatWhoSitsDownstream) {
  const auto world = mpi::Communicator::world();
  study::Fleet fleet;
  fleet.spread = 0.0;
  Case one(world, 8, 8, fleet, 1, {});
  one.backend.enter({700.0, Heat::ambient});
  const auto alone = one.backend.settle();
  one.backend.enter({700.0, Heat::neighbours});
  const auto heated = one.backend.settle();
  for (std::size_t g = 0; g < 8; ++g) {
    const double rise = heated.devices[g].temperature_c - alone.devices[g].temperature_c;
    if (g % 2 == 1) {
      EXPECT_NEAR(rise, 0.0071 * 696.5, 0.5) << g;  // h times what the neighbour draws at its cap
    } else {
      EXPECT_NEAR(rise, 0.0, 0.5) << g;
    }
  }
}

TEST(ModelHeat, SamplesComeAtTheirRate) {
  const auto world = mpi::Communicator::world();
  Case one(world, 8, 8, {}, 1, {}, 200.0, kManySteps);
  one.backend.enter({700.0, Heat::soaked});
  const auto state = one.backend.settle();
  const auto result = one.run();
  const double seconds = seconds_of(result);
  for (std::size_t d = 0; d < result.mine.devices(); ++d) {
    const auto& series = result.telemetry.series[d];
    EXPECT_NEAR(static_cast<double>(series.size()), 200.0 * seconds, 2.0);
    EXPECT_GE(series.front().time_ns, 0);
    EXPECT_LE(1e-9 * static_cast<double>(series.back().time_ns), seconds + 0.005);
    for (std::size_t i = 1; i < series.size(); ++i) {
      EXPECT_GT(series[i].time_ns, series[i - 1].time_ns);
    }
    const auto g = d + static_cast<std::size_t>(one.backend.mine().begin);
    EXPECT_NEAR(1e-3 * result.telemetry.counted[d].energy_mj / seconds / state.devices[g].power_w,
                1.0, 0.02);
  }
}

TEST(ModelHeat, WithoutTimeThereIsNothingToSample) {
  const auto world = mpi::Communicator::world();
  study::Fleet fleet;
  fleet.transient = false;
  Case at_once(world, 8, 8, fleet, 1, {});
  Case in_time(world, 8, 8, {}, 1, {});
  at_once.backend.enter({500.0, Heat::soaked});
  in_time.backend.enter({500.0, Heat::soaked});
  const auto result = at_once.run();
  EXPECT_TRUE(result.telemetry.step_sm_clock_mhz.empty());
  EXPECT_TRUE(result.telemetry.counted.empty());
  EXPECT_TRUE(std::isnan(at_once.backend.settle().window_s));
  EXPECT_EQ(result.totals.layer_ns, in_time.run().totals.layer_ns)
      << "soaked fleets keep the clocks of their steady state";
}

}  // namespace
}  // namespace moevar::run
