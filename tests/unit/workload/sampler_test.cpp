#include "workload/sampler.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "routing_checks.hpp"

namespace moevar::workload {
namespace {

std::vector<double> probabilities(std::vector<double> weights, int top_k) {
  inclusion_probabilities(weights, top_k, weights);
  return weights;
}

/// Popularities that a test should hold for: even, mild, steep enough that some experts take all.
std::vector<double> zipf(std::size_t experts, double exponent, int top_k) {
  std::vector<double> weights(experts);
  for (std::size_t e = 0; e < experts; ++e) {
    weights[e] = std::pow(static_cast<double>(e + 1), -exponent);
  }
  return probabilities(weights, top_k);
}

double binomial_probability(std::int64_t n, double p, std::int64_t x) {
  const auto trials = static_cast<double>(n);
  const auto value = static_cast<double>(x);
  return std::exp(std::lgamma(trials + 1) - std::lgamma(value + 1) -
                  std::lgamma(trials - value + 1) + value * std::log(p) +
                  (trials - value) * std::log1p(-p));
}

TEST(InclusionProbabilities, AreTheWeightsShareOfTopK) {
  EXPECT_EQ(probabilities({3, 2, 2, 1}, 2), (std::vector<double>{0.75, 0.5, 0.5, 0.25}));
}

TEST(InclusionProbabilities, WhatExceedsOneIsCutAndTheRestTakesItsPlace) {
  const auto once = probabilities({10, 1, 1, 1}, 2);
  EXPECT_EQ(once[0], 1.0);
  EXPECT_NEAR(once[3], 1.0 / 3.0, 1e-15);
  const auto twice = probabilities({100, 50, 1, 1}, 3);  // 50 exceeds 1 after the first cut alone
  EXPECT_EQ(twice[0], 1.0);
  EXPECT_EQ(twice[1], 1.0);
  EXPECT_NEAR(twice[2], 0.5, 1e-15);
}

TEST(InclusionProbabilities, AllAreCertainWhereTopKIsAll) {
  EXPECT_EQ(probabilities({1e-3, 7, 0.3}, 3), (std::vector<double>{1, 1, 1}));
  EXPECT_EQ(probabilities({5}, 1), (std::vector<double>{1}));
  EXPECT_EQ(probabilities({0, 1e-200, 4, 0}, 2), (std::vector<double>{0, 1, 1, 0}));
}

// NOLINTNEXTLINE(readability-function-cognitive-complexity): gtest's macros count
TEST(BinomialQuantile, SmallVariancesInvertTheDistribution) {
  for (const auto& [n, p] : std::vector<std::pair<std::int64_t, double>>{
           {1, 0.3}, {1, 0.5}, {7, 0.2}, {30, 0.45}, {4096, 0.002}, {32768, 1e-6}, {20, 1e-200}}) {
    double below = 0.0;
    for (std::int64_t x = 0; x <= std::min<std::int64_t>(n, 25); ++x) {
      const double reached = below + binomial_probability(n, p, x);
      if (reached - below > 1e-9) {
        EXPECT_EQ(binomial_quantile(n, p, below + 0.001 * (reached - below)), x) << n << ' ' << p;
        EXPECT_EQ(binomial_quantile(n, p, below + 0.999 * (reached - below)), x) << n << ' ' << p;
        // failures of the mirror image
        EXPECT_EQ(binomial_quantile(n, 1.0 - p, below + 0.5 * (reached - below)),
                  p == 0.5 ? x : n - x);
      }
      below = reached;
    }
  }
}

// NOLINTNEXTLINE(readability-function-cognitive-complexity): gtest's macros count
TEST(BinomialQuantile, ExtremeUniformsStayInRange) {
  for (const double p : {1e-12, 0.001, 0.3, 0.5, 0.9, 0.999999}) {
    for (const std::int64_t n : {1LL, 10LL, 32768LL, 4294967295LL}) {
      for (const double u : {0x1p-54, 1.0 - 0x1p-53}) {
        const std::int64_t x = binomial_quantile(n, p, u);
        EXPECT_GE(x, 0);
        EXPECT_LE(x, n);
        // nine standard deviations hold 1 - 2^-53, with room for the skew of small means
        const double mean = static_cast<double>(n) * p;
        EXPECT_NEAR(static_cast<double>(x), mean, 9.0 * std::sqrt(mean * (1 - p)) + 20.0);
      }
    }
  }
}

TEST(BinomialQuantile, TheExpansionHasTheBinomialsMomentsAndShape) {
  for (const auto& [n, p] : std::vector<std::pair<std::int64_t, double>>{
           {4096, 0.0025}, {64, 0.2}, {48, 0.5}, {400, 0.97}, {32768, 1.0 / 32}}) {
    constexpr int kPoints = 400000;
    const double mean = static_cast<double>(n) * p;
    const double variance = mean * (1 - p);
    Moments moments;
    std::vector<double> share(static_cast<std::size_t>(n) + 1, 0.0);
    for (int i = 0; i < kPoints; ++i) {
      const auto x = binomial_quantile(n, p, (i + 0.5) / kPoints);
      moments.add(static_cast<double>(x));
      share[static_cast<std::size_t>(x)] += 1.0 / kPoints;
    }
    EXPECT_NEAR(moments.mean(), mean, 1e-3 * std::sqrt(variance)) << n << ' ' << p;
    EXPECT_NEAR(moments.variance() / variance, 1.0, 2e-3) << n << ' ' << p;
    double distance = 0.0;
    for (std::int64_t x = 0; x <= n; ++x) {
      distance +=
          0.5 * std::abs(share[static_cast<std::size_t>(x)] - binomial_probability(n, p, x));
    }
    EXPECT_LT(distance, 0.004) << n << ' ' << p;
  }
}

TEST(SampleCounts, SumIsExactAndNoTokenTakesAnExpertTwice) {
  for (const int experts : {1, 2, 3, 8, 64, 257}) {
    for (const int top_k : {1, 2, 8, experts - 1, experts}) {
      if (top_k < 1 || top_k > experts) {
        continue;
      }
      for (const double exponent : {0.0, 0.5, 1.2, 30.0}) {
        const auto pi = zipf(static_cast<std::size_t>(experts), exponent, top_k);
        std::vector<std::uint32_t> counts(pi.size());
        std::vector<double> work(pi.size());
        for (const std::int64_t tokens : {1LL, 2LL, 5LL, 64LL, 1000LL, 32768LL, 4294967295LL}) {
          for (std::uint64_t draw = 0; draw < 20; ++draw) {
            sample_counts(pi, top_k, tokens, RandomKey(draw), work, counts);
            SCOPED_TRACE(testing::Message() << experts << " experts, top " << top_k << ", Zipf "
                                            << exponent << ", " << tokens << " tokens");
            expect_valid_counts(counts, top_k, tokens);
          }
        }
      }
    }
  }
}

TEST(SampleCounts, CertainAndImpossibleExperts) {
  const std::vector<double> pi{1.0, 0.0, 0.5, 0.5, 1.0};
  std::vector<std::uint32_t> counts(pi.size());
  std::vector<double> work(pi.size());
  for (std::uint64_t draw = 0; draw < 1000; ++draw) {
    sample_counts(pi, 3, 9, RandomKey(draw), work, counts);
    EXPECT_EQ(counts[0], 9U);
    EXPECT_EQ(counts[1], 0U);
    EXPECT_EQ(counts[4], 9U);
    expect_valid_counts(counts, 3, 9);
  }
}

/// Mean n π and variance (1 - v / Σv) v, v = n π (1 - π), within five standard errors of `draws`.
// NOLINTNEXTLINE(readability-function-cognitive-complexity): gtest's macros count
void expect_moments(std::size_t experts, double exponent, int top_k, std::int64_t tokens,
                    int draws) {
  SCOPED_TRACE(testing::Message() << experts << " experts, top " << top_k << ", Zipf " << exponent
                                  << ", " << tokens << " tokens");
  const auto pi = zipf(experts, exponent, top_k);
  std::vector<std::uint32_t> counts(experts);
  std::vector<double> work(experts);
  std::vector<Moments> moments(experts);
  Moments device;  // of the first eighth of the experts
  for (int draw = 0; draw < draws; ++draw) {
    sample_counts(pi, top_k, tokens, RandomKey(17)[static_cast<std::uint64_t>(draw)], work, counts);
    for (std::size_t e = 0; e < experts; ++e) {
      moments[e].add(counts[e]);
    }
    device.add(
        std::accumulate(counts.begin(), counts.begin() + static_cast<long>(experts / 8), 0.0));
  }
  const auto n = static_cast<double>(tokens);
  double total = 0.0;
  for (const double p : pi) {
    total += n * p * (1 - p);
  }
  double block = 0.0;
  for (std::size_t e = 0; e < experts; ++e) {
    const double v = n * pi[e] * (1 - pi[e]);
    const double variance = v * (1 - v / total);
    if (v == 0.0) {
      EXPECT_EQ(moments[e].variance(), 0.0);
      continue;
    }
    const double excess = std::max(0.0, 1.0 / v - 6.0 / n);  // kurtosis, for the standard error
    EXPECT_NEAR(moments[e].mean(), n * pi[e], 5.0 * std::sqrt(variance / draws)) << e;
    EXPECT_NEAR(moments[e].variance() / variance, 1.0, 5.0 * std::sqrt((2.0 + excess) / draws))
        << e;
    block += e < experts / 8 ? v : 0.0;
  }
  EXPECT_NEAR(device.variance() / (block * (1 - block / total)), 1.0, 5.0 * std::sqrt(2.5 / draws));
}

TEST(SampleCounts, MomentsOfManyTokens) {
  expect_moments(256, 0.5, 8, 32768, 4000);
  expect_moments(256, 0.0, 8, 4096, 4000);
  expect_moments(64, 1.0, 8, 1024, 4000);
  expect_moments(8, 0.3, 2, 1024, 4000);
}

TEST(SampleCounts, MomentsOfFewTokens) {
  expect_moments(256, 0.0, 8, 1, 4000);
  expect_moments(256, 0.5, 8, 1, 4000);
  expect_moments(256, 0.5, 8, 4, 4000);
  expect_moments(256, 0.5, 8, 64, 4000);
  expect_moments(256, 0.5, 8, 256, 4000);
  expect_moments(256, 0.5, 8, 512, 4000);
  expect_moments(64, 0.5, 1, 16, 4000);
  expect_moments(64, 1.0, 8, 16, 4000);
  expect_moments(8, 0.3, 2, 4, 4000);
  expect_moments(8, 0.3, 2, 64, 4000);
}

TEST(DealExperts, IsRandomInTokensAndExact) {
  const std::vector<std::uint32_t> counts{3, 0, 1, 2};
  const auto first = deal_experts(counts, 2, 3, RandomKey(1));
  EXPECT_EQ(first, deal_experts(counts, 2, 3, RandomKey(1)));
  bool differs = false;
  for (std::uint64_t seed = 2; seed < 12; ++seed) {
    differs = differs || !(deal_experts(counts, 2, 3, RandomKey(seed)) == first);
  }
  EXPECT_TRUE(differs);
}

}  // namespace
}  // namespace moevar::workload
