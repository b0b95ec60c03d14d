#include "stats/quantiles.hpp"

#include <array>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::stats {
namespace {

constexpr std::array kAll{kMedian, kP90, kP95, kP99};

std::vector<std::int64_t> one_to(std::int64_t n) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(n));
  std::iota(values.rbegin(), values.rend(), 1);  // falling: quantiles must sort
  return values;
}

TEST(NearestRank, IsTheCeilingOfPTimesN) {
  EXPECT_EQ(nearest_rank(kMedian, 1), 1U);
  EXPECT_EQ(nearest_rank(kMedian, 4), 2U);
  EXPECT_EQ(nearest_rank(kMedian, 5), 3U);
  EXPECT_EQ(nearest_rank(kP90, 10), 9U);
  EXPECT_EQ(nearest_rank(kP90, 11), 10U);
  EXPECT_EQ(nearest_rank(kP99, 100), 99U);
  EXPECT_EQ(nearest_rank(kP99, 101), 100U);
  EXPECT_EQ(nearest_rank({1, 1}, 7), 7U);
  EXPECT_EQ(nearest_rank({1, 1000}, 7), 1U);
}

TEST(NearestRank, ComputesInIntegers) {
  // in doubles 0.95 * 20 rounds up past 19, and 0.07 * 100 past 7
  EXPECT_EQ(nearest_rank(kP95, 20), 19U);
  EXPECT_EQ(nearest_rank({7, 100}, 100), 7U);
  const std::size_t huge = std::size_t{1} << 62U;
  EXPECT_EQ(nearest_rank({1, 2}, huge), huge / 2);
}

TEST(NearestRank, RefusesWhatIsNoQuantile) {
  EXPECT_THROW(nearest_rank({0, 100}, 10), InputError);
  EXPECT_THROW(nearest_rank({101, 100}, 10), InputError);
  EXPECT_THROW(nearest_rank({-1, -2}, 10), InputError);
  EXPECT_THROW(nearest_rank(kMedian, 0), InputError);
}

TEST(Quantiles, PickElementsOfTheSortedValues) {
  EXPECT_EQ(quantiles(one_to(100), kAll), (std::vector<std::int64_t>{50, 90, 95, 99}));
  EXPECT_EQ(quantiles(one_to(7), kAll), (std::vector<std::int64_t>{4, 7, 7, 7}));
  const std::vector<double> values{3.5, -1.0, 2.0, 8.0};
  EXPECT_EQ(quantiles(values, kAll), (std::vector<double>{2.0, 8.0, 8.0, 8.0}));
}

TEST(Quantiles, OfNothingAreNone) {
  EXPECT_TRUE(quantiles(std::vector<double>{}, kAll).empty());
  EXPECT_FALSE(mean(std::span<const double>{}).has_value());
  EXPECT_FALSE(mean(std::span<const std::int64_t>{}).has_value());
}

TEST(Mean, SumsIntegersExactly) {
  const std::vector<std::int64_t> values{(std::int64_t{1} << 60U) + 1, -(std::int64_t{1} << 60U)};
  EXPECT_EQ(mean(values), 0.5);
  EXPECT_EQ(mean(std::vector<double>{1.0, 2.0, 6.0}), 3.0);
}

struct Row {
  Fraction p;
  std::size_t n;
  std::size_t lower;  // 0: no interval
  std::size_t upper;
  double coverage;
};

TEST(QuantileInterval, AgreesWithTheTables) {
  const std::vector<Row> rows{
      {kMedian, 5, 0, 0, 0},
      {kMedian, 6, 1, 6, .9688},
      {kMedian, 7, 1, 7, .9844},
      {kMedian, 9, 2, 8, .9609},
      {kMedian, 10, 2, 9, .9785},
      {kMedian, 20, 6, 15, .9586},
      {kMedian, 30, 10, 21, .9572},
      {kMedian, 50, 18, 33, .9672},
      {kMedian, 100, 40, 61, .9648},
      {kMedian, 200, 86, 115, .9600},
      {kMedian, 500, 228, 273, .9559},
      {kMedian, 1000, 469, 532, .9537},
      {kP90, 35, 0, 0, 0},
      {kP90, 36, 29, 36, .9540},
      {kP90, 72, 59, 70, .9682},
      {kP90, 100, 84, 96, .9557},
      {kP90, 200, 171, 189, .9669},
      {kP90, 368, 320, 343, .9550},
      {kP90, 500, 436, 464, .9634},
      {kP90, 1000, 881, 919, .9549},
      {kP95, 36, 0, 0, 0},
      {kP95, 71, 0, 0, 0},
      {kP95, 72, 64, 72, .9655},
      {kP95, 100, 90, 100, .9826},
      {kP95, 200, 184, 197, .9672},
      {kP95, 368, 341, 358, .9584},
      {kP95, 500, 465, 485, .9605},
      {kP95, 1000, 936, 964, .9581},
      {kP99, 200, 0, 0, 0},
      {kP99, 367, 0, 0, 0},
      {kP99, 368, 360, 368, .9624},
      {kP99, 500, 490, 500, .9802},
      {kP99, 1000, 983, 997, .9761},
  };
  for (const auto& row : rows) {
    const auto found = quantile_interval(row.p, row.n);
    SCOPED_TRACE(testing::Message()
                 << row.p.numerator << "/" << row.p.denominator << " of " << row.n);
    ASSERT_EQ(found.has_value(), row.lower > 0);
    if (found) {
      EXPECT_EQ(found->lower, row.lower);
      EXPECT_EQ(found->upper, row.upper);
      EXPECT_NEAR(found->coverage, row.coverage, 0.5001e-4);
    }
  }
}

TEST(QuantileInterval, HoldsWhereProbabilitiesUnderflow) {
  // 0.5^1e6 is no double; the normal approximation places the ranks at n/2 ± 0.98 √n
  const auto found = quantile_interval(kMedian, 1000000);
  ASSERT_TRUE(found.has_value());
  EXPECT_NEAR(static_cast<double>(found->lower), 500000 - 980, 1.5);
  EXPECT_EQ(found->lower + found->upper, 1000001U);
  EXPECT_GE(found->coverage, 0.95);
  EXPECT_LT(found->coverage, 0.952);
}

TEST(QuantileInterval, RefusesWhatIsNone) {
  EXPECT_THROW(quantile_interval({1, 1}, 10), InputError);
  EXPECT_THROW(quantile_interval({0, 1}, 10), InputError);
  EXPECT_THROW(quantile_interval(kMedian, 10, 0.0), InputError);
  EXPECT_THROW(quantile_interval(kMedian, 10, std::nan("")), InputError);
  EXPECT_FALSE(quantile_interval(kMedian, 0).has_value());
}

}  // namespace
}  // namespace moevar::stats
