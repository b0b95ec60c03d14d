#include "serving/rate_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"

namespace moevar::serving {
namespace {

constexpr double kTarget = 0.9;

/// Full up to 5 requests/s, none from 15 on: 0.9 at 6.
double falling(double rate) { return std::clamp(1.0 - (rate - 5.0) / 10.0, 0.0, 1.0); }

void expect_bracket(const RateSearch& found, double tolerance = 0.02) {
  ASSERT_TRUE(found.kept && found.missed && found.rate_rps);
  EXPECT_GE(found.kept->attainment, kTarget);
  EXPECT_LT(found.missed->attainment, kTarget);
  EXPECT_LT(found.kept->rate_rps, found.missed->rate_rps);
  EXPECT_LE(found.missed->rate_rps, found.kept->rate_rps * (1.0 + tolerance));
  EXPECT_GE(*found.rate_rps, found.kept->rate_rps);
  EXPECT_LE(*found.rate_rps, found.missed->rate_rps);
}

TEST(FindRate, AFallingCurveFromAnyStart) {
  for (const RateRange start : {RateRange{5.5, 7.0}, RateRange{0.01, 0.02}, RateRange{100.0, 101.0},
                                RateRange{1.0, 1000.0}, RateRange{5.99, 6.01}}) {
    const auto found = find_rate(falling, kTarget, start);
    expect_bracket(found);
    EXPECT_NEAR(*found.rate_rps, 6.0, 1e-9) << start.low_rps << " to " << start.high_rps;
  }
}

TEST(FindRate, InterpolatesBetweenTheMeasuredRates) {
  // 1 at the kept end, 0.5 at the missed one: the crossing lies a fifth of the way
  const auto found =
      find_rate([](double rate) { return rate < 10.05 ? 1.0 : 0.5; }, kTarget, {10.0, 10.1});
  EXPECT_EQ(found.evaluations.size(), 2U);
  EXPECT_NEAR(*found.rate_rps, 10.0 + 0.2 * 0.1, 1e-12);
}

TEST(FindRate, ACurveWithoutStraightParts) {
  const auto found = find_rate(
      [](double rate) { return 1.0 / (1.0 + std::exp(3.0 * (rate - 4.0))); }, kTarget, {1.0, 2.0});
  expect_bracket(found);
  EXPECT_NEAR(*found.rate_rps, 4.0 - std::log(9.0) / 3.0, 0.005);
}

TEST(FindRate, AStep) {
  const auto step = [](double rate) { return rate <= 7.0 ? 1.0 : 0.0; };
  for (const double tolerance : {0.1, 0.02, 0.001}) {
    const auto found = find_rate(step, kTarget, {1.0, 2.0}, tolerance);
    expect_bracket(found, tolerance);
    EXPECT_LE(found.kept->rate_rps, 7.0);
    EXPECT_GT(found.missed->rate_rps, 7.0);
  }
}

TEST(FindRate, ANoisyCurveIsCrossedWithinItsNoise) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto noisy = [&](double rate) {
      const double noise =
          0.1 * (RandomKey(seed)[static_cast<std::uint64_t>(1e6 * rate)].uniform() - 0.5);
      return std::clamp(falling(rate) + noise, 0.0, 1.0);
    };
    const auto found = find_rate(noisy, kTarget, {2.0, 4.0});
    expect_bracket(found);
    // the noise reaches 0.05, the curve falls by 0.1 for a request per second; and the bracket's 2
    // %
    EXPECT_NEAR(*found.rate_rps, 6.0, 0.5 + 0.13);
  }
}

TEST(FindRate, OfTwoCrossingsItFindsOneThatTheStartLeadsTo) {
  const auto twice = [](double rate) {
    return rate <= 3.0 || (rate >= 5.0 && rate <= 6.0) ? 1.0 : 0.0;
  };
  const auto upper = find_rate(twice, kTarget, {5.5, 8.0});
  expect_bracket(upper);
  EXPECT_NEAR(*upper.rate_rps, 6.0, 0.12);
  const auto lower = find_rate(twice, kTarget, {2.0, 4.0});
  expect_bracket(lower);
  EXPECT_NEAR(*lower.rate_rps, 3.0, 0.06);
}

TEST(FindRate, NeverKept) {
  int calls = 0;
  const auto found = find_rate(
      [&](double) {
        ++calls;
        return 0.5;
      },
      kTarget, {8.0, 16.0});
  EXPECT_FALSE(found.rate_rps);
  EXPECT_FALSE(found.kept);
  ASSERT_TRUE(found.missed);
  EXPECT_EQ(found.missed->rate_rps, std::ldexp(8.0, -kMostDoublings));
  EXPECT_EQ(calls, 1 + kMostDoublings);
  EXPECT_EQ(found.evaluations.size(), static_cast<std::size_t>(calls));
}

TEST(FindRate, AlwaysKept) {
  const auto found = find_rate([](double) { return 1.0; }, 1.0, {8.0, 16.0});
  EXPECT_FALSE(found.rate_rps);
  EXPECT_FALSE(found.missed);
  ASSERT_TRUE(found.kept);
  EXPECT_EQ(found.kept->rate_rps, std::ldexp(16.0, kMostDoublings));
  EXPECT_EQ(found.evaluations.size(), static_cast<std::size_t>(2 + kMostDoublings));
}

TEST(FindRate, NoRateIsEvaluatedTwice) {
  const auto found = find_rate(falling, kTarget, {0.5, 64.0});
  std::set<double> rates;
  for (const auto& evaluation : found.evaluations) {
    EXPECT_EQ(evaluation.attainment, falling(evaluation.rate_rps));
    rates.insert(evaluation.rate_rps);
  }
  EXPECT_EQ(rates.size(), found.evaluations.size());
}

TEST(FindRate, WhatCannotBeSearchedIsRefused) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double target : {0.0, 1.1, -1.0, kNan}) {
    EXPECT_THROW(find_rate(falling, target, {1.0, 2.0}), InputError);
  }
  for (const RateRange start :
       {RateRange{0.0, 1.0}, RateRange{2.0, 1.0}, RateRange{1.0, 1.0}, RateRange{1.0, kInfinity},
        RateRange{kNan, 1.0}, RateRange{-1.0, 1.0}}) {
    EXPECT_THROW(find_rate(falling, kTarget, start), InputError);
  }
  for (const double tolerance : {0.0, -0.02, kNan}) {
    EXPECT_THROW(find_rate(falling, kTarget, {1.0, 2.0}, tolerance), InputError);
  }
  for (const double attainment : {-0.1, 1.1, kNan}) {
    EXPECT_THROW(find_rate([=](double) { return attainment; }, kTarget, {1.0, 2.0}), InputError);
  }
}

}  // namespace
}  // namespace moevar::serving
