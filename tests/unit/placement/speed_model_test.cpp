#include "placement/speed_model.hpp"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::placement {
namespace {

TEST(SpeedCurve, InterpolatesFromTheOriginAndGoesOnWithTheLastSlope) {
  const SpeedCurve curve({100, 200, 400}, {50, 60, 100});
  EXPECT_DOUBLE_EQ(curve.time_us(0), 0);
  EXPECT_DOUBLE_EQ(curve.time_us(50), 25);
  EXPECT_DOUBLE_EQ(curve.time_us(150), 55);
  EXPECT_DOUBLE_EQ(curve.time_us(400), 100);
  EXPECT_DOUBLE_EQ(curve.time_us(600), 140);
}

TEST(SpeedCurve, TokensWithinInvertsTime) {
  const SpeedCurve curve({100, 200, 400}, {50, 60, 100});
  for (const double tokens : {1.0, 99.0, 100.0, 170.0, 399.0, 900.0}) {
    EXPECT_NEAR(curve.tokens_within(curve.time_us(tokens)), tokens, 1e-9);
  }
}

TEST(SpeedCurve, AFlatEndTakesAnyNumberOfTokens) {
  const SpeedCurve curve({100, 200}, {50, 50});
  EXPECT_EQ(curve.tokens_within(60), std::numeric_limits<double>::infinity());
  EXPECT_NEAR(curve.tokens_within(25), 50, 1e-9);
}

TEST(SpeedCurve, LiftsADipToTheRunningMaximum) {
  const SpeedCurve curve({1, 2, 3}, {10, 8, 12});
  EXPECT_DOUBLE_EQ(curve.time_us(2), 10);
}

TEST(SpeedCurve, RefusesWhatIsNoCurve) {
  EXPECT_THROW(SpeedCurve({}, {}), InputError);
  EXPECT_THROW(SpeedCurve({1, 2}, {1}), InputError);
  EXPECT_THROW(SpeedCurve({2, 1}, {1, 2}), InputError);
  EXPECT_THROW(SpeedCurve({0, 1}, {1, 2}), InputError);
  EXPECT_THROW(SpeedCurve({1, 2}, {1, -2}), InputError);
  EXPECT_THROW(SpeedCurve({1, 2}, {1, std::nan("")}), InputError);
}

TEST(ProfileGrid, RisesToTheMaximumOnTileEdges) {
  const auto grid = profile_grid(32, 128, 100000);
  EXPECT_GE(grid.back(), 100000);
  for (std::size_t i = 1; i < grid.size(); ++i) {
    EXPECT_GT(grid[i], grid[i - 1]);
    if (grid[i] >= 32 * 128) {
      EXPECT_EQ(std::fmod(grid[i], 32 * 128), 0);
    }
  }
  EXPECT_EQ(profile_grid(32, 128, 1).size(), 1U);
}

}  // namespace
}  // namespace moevar::placement
