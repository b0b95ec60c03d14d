#include "run/speed_watch.hpp"

#include <gtest/gtest.h>

#include "base/random.hpp"

namespace moevar::run {
namespace {

/// Steps until it fires, 0: it does not. Layers have ratios of their own, and noise.
int fires_after(SpeedWatch& watch, std::size_t layers, double slow, double noise, int steps,
                std::uint64_t seed) {
  std::vector<double> ratios(layers);
  for (int step = 1; step <= steps; ++step) {
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const auto draw = RandomKey(seed)[static_cast<std::uint64_t>(step)][layer];
      ratios[layer] =
          slow * (0.7 + 0.1 * static_cast<double>(layer % 5)) * (1.0 + noise * draw.normal());
    }
    watch.step(ratios);
    if (watch.left()) {
      return step;
    }
  }
  return 0;
}

TEST(SpeedWatch, ADeviceThatSlowsIsNoticedInTwoIntervals) {
  for (const std::size_t layers : {2U, 8U, 58U}) {
    SpeedWatch watch(layers);
    EXPECT_EQ(fires_after(watch, layers, 1.0, 0.005, 300, 1), 0) << layers;
    EXPECT_EQ(fires_after(watch, layers, 1.2, 0.005, 300, 2), 20) << layers;
    EXPECT_NEAR(watch.left().value(), 1.2, 0.01);
  }
}

TEST(SpeedWatch, OneLayerTakesFour) {
  SpeedWatch watch(1);
  EXPECT_EQ(fires_after(watch, 1, 1.0, 0.005, 300, 1), 0);
  EXPECT_EQ(fires_after(watch, 1, 0.8, 0.005, 300, 2), 40);
}

TEST(SpeedWatch, NoiseAloneIsNoReason) {
  int fired = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SpeedWatch watch(4);
    fired += fires_after(watch, 4, 1.0, 0.2, 500, seed) > 0 ? 1 : 0;
  }
  EXPECT_LE(fired, 4) << "of 200 runs of 500 steps whose calls scatter by 20 %";
}

TEST(SpeedWatch, AChangeBelowTheLimitOrOfOneLayerIsNone) {
  SpeedWatch watch(8);
  EXPECT_EQ(fires_after(watch, 8, 1.0, 0.001, 100, 1), 0);
  EXPECT_EQ(fires_after(watch, 8, 1.04, 0.001, 300, 2), 0);
  std::vector<double> ratios(8, 1.0);
  SpeedWatch other(8);
  for (int step = 0; step < 300; ++step) {
    ratios[3] = step < 100 ? 1.0 : 2.0;  // 12 % on average
    other.step(ratios);
  }
  EXPECT_FALSE(other.left());
}

TEST(SpeedWatch, LayersWithoutTokensSayNothing) {
  SpeedWatch watch(3);
  for (int step = 0; step < 200; ++step) {
    watch.step({0.0, step < 100 ? 1.0 : 1.3, 0.0});
  }
  EXPECT_TRUE(watch.left());
  SpeedWatch silent(3);
  for (int step = 0; step < 200; ++step) {
    silent.step({0.0, 0.0, 0.0});
  }
  EXPECT_FALSE(silent.left());
}

}  // namespace
}  // namespace moevar::run
