#include "run/profiling.hpp"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "stats/quantiles.hpp"

namespace moevar::run {
namespace {

/// Nine times about each of `medians`, in no order: from 4 below to 4 above.
Matrix<double> repeats_about(const std::vector<double>& medians) {
  Matrix<double> repeats({medians.size(), kProfileRepeats});
  for (std::size_t point = 0; point < medians.size(); ++point) {
    for (std::size_t i = 0; i < kProfileRepeats; ++i) {
      repeats(point, i) = medians[point] - 4.0 + static_cast<double>(4 * i % kProfileRepeats);
    }
  }
  return repeats;
}

TEST(Profiling, AnIntervalIsThereForTheRepeats) {
  const auto ranks = stats::quantile_interval(stats::kMedian, kProfileRepeats);
  ASSERT_TRUE(ranks);
  EXPECT_EQ(ranks->lower, 2U);
  EXPECT_EQ(ranks->upper, 8U);
  EXPECT_NEAR(ranks->coverage, 1.0 - 20.0 / 512.0, 1e-12);  // B(9, 1/2) within 2 ... 7
}

TEST(Profiling, ACurveGoesThroughMediansAndKnowsTheirIntervals) {
  const auto curve = fitted_curve({8.0, 16.0, 32.0}, repeats_about({10.0, 20.0, 40.0}));
  EXPECT_TRUE(std::ranges::equal(curve.times(), std::vector<double>{0.0, 10.0, 20.0, 40.0}));
  EXPECT_EQ(curve.measurement().lower_us, (std::vector<double>{7.0, 17.0, 37.0}));
  EXPECT_EQ(curve.measurement().upper_us, (std::vector<double>{13.0, 23.0, 43.0}));
}

TEST(Profiling, MediansThatFallArePooledAndIntervalsStayAsMeasured) {
  const auto curve = fitted_curve({8.0, 16.0, 32.0}, repeats_about({10.0, 30.0, 20.0}));
  EXPECT_TRUE(std::ranges::equal(curve.times(), std::vector<double>{0.0, 10.0, 25.0, 25.0}));
  EXPECT_EQ(curve.measurement().lower_us, (std::vector<double>{7.0, 27.0, 17.0}));
}

}  // namespace
}  // namespace moevar::run
