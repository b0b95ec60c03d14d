#include <functional>
#include <limits>
#include <map>
#include <thread>

#include <gtest/gtest.h>

#include "routing_checks.hpp"

namespace moevar::workload {
namespace {

/// So many tokens that the loads show the popularity to four digits.
constexpr std::int64_t kMany = 1'000'000'000;

std::vector<double> loads(const Routing& routing, std::int64_t step, std::size_t layer) {
  const LayerCounts counts = sampled(routing, step, kMany);
  const auto row = counts.row(layer);
  return {row.begin(), row.end()};
}

double cosine_distance(std::span<const double> a, std::span<const double> b) {
  const double product = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  const double squares = std::inner_product(a.begin(), a.end(), a.begin(), 0.0) *
                         std::inner_product(b.begin(), b.end(), b.begin(), 0.0);
  return 1.0 - product / std::sqrt(squares);
}

TEST(Synthetic, EverySampleAndTokenTableIsValid) {
  for (const RoutingShape& shape : {RoutingShape{2, 1, 1}, RoutingShape{2, 8, 2},
                                    RoutingShape{2, 8, 8}, RoutingShape{1, 257, 8}}) {
    for (const SyntheticSpec& spec :
         {SyntheticSpec{0, 0, 0}, SyntheticSpec{0.5, 0.3, 0}, SyntheticSpec{1, 0, 0.37},
          SyntheticSpec{1, 1, 1}, SyntheticSpec{1000, 0.5, 0.5}}) {
      const auto routing = make_synthetic(shape, spec, 5);
      for (const std::int64_t tokens : {1LL, 3LL, 100LL, 5000LL}) {
        for (const std::int64_t step :
             {std::int64_t{0}, std::int64_t{7}, std::numeric_limits<std::int64_t>::max()}) {
          const LayerCounts counts = sampled(*routing, step, tokens);
          for (std::size_t layer = 0; layer < counts.extent(0); ++layer) {
            expect_valid_counts(counts.row(layer), shape.top_k, tokens);
            expect_valid_tokens(*routing, step, static_cast<int>(layer), tokens);
          }
        }
      }
    }
  }
}

TEST(Synthetic, DependsOnSeedStepAndLayerAlone) {
  const RoutingShape shape{3, 64, 8};
  const SyntheticSpec spec{0.5, 0.3, 0.1};
  const auto routing = make_synthetic(shape, spec, 11);
  const LayerCounts later = sampled(*routing, 9, 4096);
  const LayerCounts first = sampled(*routing, 0, 4096);
  const auto table = routing->token_experts(9, 2, 300);
  const auto again = make_synthetic(shape, spec, 11);
  EXPECT_EQ(sampled(*again, 0, 4096), first);
  EXPECT_EQ(sampled(*again, 9, 4096), later);
  EXPECT_EQ(again->token_experts(9, 2, 300), table);
  EXPECT_FALSE(first == later);
  EXPECT_FALSE(sampled(*make_synthetic(shape, spec, 12), 0, 4096) == first);

  // fewer layers: the same first ones
  const auto shallow = make_synthetic({1, 64, 8}, spec, 11);
  EXPECT_TRUE(std::ranges::equal(sampled(*shallow, 9, 4096).row(0), later.row(0)));
}

TEST(Synthetic, MayBeSampledByManyThreads) {
  const auto routing = make_synthetic({4, 64, 8}, {0.5, 0.3, 0.1}, 1);
  std::vector<LayerCounts> together(8);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t step = t; step < together.size(); step += 4) {
        together[step] = sampled(*routing, static_cast<std::int64_t>(step), 4096);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (std::size_t step = 0; step < together.size(); ++step) {
    EXPECT_EQ(together[step], sampled(*routing, static_cast<std::int64_t>(step), 4096));
  }
}

TEST(Synthetic, TokensAreDrawnInRandomOrder) {
  // the experts of a token say nothing about its number: a half of the tokens holds half the load
  const auto routing = make_synthetic({1, 16, 2}, {0.5, 0, 0}, 3);
  constexpr std::int64_t kTokens = 20000;
  const auto experts = routing->token_experts(0, 0, kTokens);
  const LayerCounts counts = sampled(*routing, 0, kTokens);
  std::vector<double> in_first_half(16, 0.0);
  for (std::size_t token = 0; token < kTokens / 2; ++token) {
    for (const std::int32_t expert : experts.row(token)) {
      in_first_half[static_cast<std::size_t>(expert)] += 1.0;
    }
  }
  for (std::size_t e = 0; e < 16; ++e) {
    const double half = counts(0, e) / 2.0;
    EXPECT_NEAR(in_first_half[e], half, 5.0 * std::sqrt(half / 2.0)) << e;
  }
}

TEST(Synthetic, ZipfExponentsOfTheLayersSpreadAroundTheSkew) {
  constexpr int kLayers = 400;
  constexpr std::size_t kExperts = 64;
  const auto routing = make_synthetic({kLayers, kExperts, 2}, {0.5, 0, 0}, 7);
  const LayerCounts counts = sampled(*routing, 0, kMany);
  Moments log_exponent;
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    std::vector<double> log_load(kExperts);
    std::ranges::transform(counts.row(layer), log_load.begin(),
                           [](double count) { return std::log(count); });
    std::ranges::sort(log_load, std::greater<>{});
    Moments x, y;
    double product = 0.0;
    for (std::size_t rank = 0; rank < kExperts; ++rank) {
      const double log_rank = std::log(static_cast<double>(rank + 1));
      x.add(log_rank);
      y.add(log_load[rank]);
      product += log_rank * log_load[rank];
    }
    const double slope = (product - x.n * x.mean() * y.mean()) / ((x.n - 1.0) * x.variance());
    log_exponent.add(std::log(-slope));
  }
  EXPECT_NEAR(log_exponent.mean(), std::log(0.5), 5.0 * 0.22 / std::sqrt(kLayers));
  EXPECT_NEAR(std::sqrt(log_exponent.variance()), 0.22, 5.0 * 0.22 / std::sqrt(2.0 * kLayers));
}

// A layer with more or fewer experts whose popularities are spread like those of one with 256: part
// p of its experts takes the same part of the tokens.
TEST(Synthetic, PopularityMayKeepItsDistribution) {
  const auto shares = [](int experts) {
    const auto routing = make_synthetic({1, experts, 1}, {.skew = 0.8, .like_experts = 256}, 3);
    auto counts = loads(*routing, 0, 0);
    std::ranges::sort(counts, std::greater<>{});
    std::vector<double> parts;
    for (const int of : {8, 4, 2}) {
      const auto end = counts.begin() + experts / of;
      parts.push_back(std::accumulate(counts.begin(), end, 0.0) / kMany);
    }
    return parts;
  };
  const auto expected = shares(256);
  EXPECT_GT(expected[0], 0.3);
  for (const int experts : {8, 64, 1024, 16384}) {
    const auto parts = shares(experts);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      EXPECT_NEAR(parts[i], expected[i], 2e-4) << experts;
    }
  }
}

// Weights of the coldest experts come close to nothing, and there must still be top_k to draw from.
TEST(Synthetic, SteepPopularityLeavesEveryExpertSomething) {
  for (const int experts : {8, 100, 512}) {
    const auto routing = make_synthetic({58, experts, 8}, {.skew = 10.0, .like_experts = 256}, 1);
    for (const std::int64_t tokens : {1LL, 1000LL}) {
      const LayerCounts counts = sampled(*routing, 0, tokens);
      for (std::size_t layer = 0; layer < counts.extent(0); ++layer) {
        expect_valid_counts(counts.row(layer), 8, tokens);
      }
    }
  }
}

TEST(Synthetic, ALayerLikeItselfIsItself) {
  const auto plain = make_synthetic({2, 64, 8}, {.skew = 0.6, .burst = 0.2, .drift = 0.1}, 3);
  const auto like =
      make_synthetic({2, 64, 8}, {.skew = 0.6, .burst = 0.2, .drift = 0.1, .like_experts = 64}, 3);
  EXPECT_EQ(sampled(*plain, 7, 1000), sampled(*like, 7, 1000));
}

TEST(Synthetic, NoSkewIsEven) {
  const auto routing = make_synthetic({4, 64, 8}, {0, 0, 0}, 7);
  constexpr double kMean = 32768.0 * 8 / 64;
  const LayerCounts counts = sampled(*routing, 0, 32768);
  for (const std::uint32_t count : counts.flat()) {
    EXPECT_NEAR(count, kMean, 5.0 * std::sqrt(kMean));
  }
}

TEST(Synthetic, EveryLayerHasHotExpertsOfItsOwn) {
  constexpr std::size_t kLayers = 20;
  const auto routing = make_synthetic({kLayers, 64, 4}, {0.5, 0, 0}, 2);
  Moments pairs;
  for (std::size_t a = 0; a < kLayers; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      pairs.add(correlation(loads(*routing, 0, a), loads(*routing, 0, b)));
    }
  }
  // of independent orders: mean 0, standard deviation 1 / sqrt(experts - 1)
  const double sd = 1.0 / std::sqrt(63.0);
  EXPECT_NEAR(pairs.mean(), 0.0, 5.0 * sd / std::sqrt(pairs.n));
  EXPECT_NEAR(std::sqrt(pairs.variance()), sd, 0.3 * sd);
}

/// What a temporal expert's load is, relative to a consistent one's: [windows] of each expert that
/// ever leaves 1, in one layer. Skew 0, so that consistent experts are all alike and the median.
std::map<std::size_t, std::vector<double>> temporal_loads(const Routing& routing, std::size_t layer,
                                                          std::int64_t windows) {
  std::map<std::size_t, std::vector<double>> relative;
  for (std::int64_t window = 0; window < windows; ++window) {
    const std::vector<double> row = loads(routing, 4 * window + window % 4, layer);
    std::vector<double> sorted = row;
    std::ranges::sort(sorted);
    for (std::size_t e = 0; e < row.size(); ++e) {
      const double ratio = row[e] / sorted[sorted.size() / 2];
      if (std::abs(ratio - 1.0) > 0.1) {
        relative[e].push_back(ratio);
      }
    }
  }
  return relative;
}

// NOLINTNEXTLINE(readability-function-cognitive-complexity): gtest's macros count
TEST(Synthetic, TemporalExpertsBurstInGroups) {
  constexpr std::int64_t kWindows = 600;
  const auto routing = make_synthetic({3, 64, 2}, {0, 0.25, 0}, 4);
  const double idle = (1 - 0.17 * 3) / (1 - 0.17);
  Moments active, weight;
  std::map<std::vector<double>, int> series;  // activity over time, and how many experts have it
  for (std::size_t layer = 0; layer < 3; ++layer) {
    const auto temporal = temporal_loads(*routing, layer, kWindows);
    ASSERT_EQ(temporal.size(), 16U);
    for (const auto& [expert, relative] : temporal) {
      ASSERT_EQ(relative.size(), static_cast<std::size_t>(kWindows));
      std::vector<double> on(relative.size());
      for (std::size_t w = 0; w < relative.size(); ++w) {
        on[w] = relative[w] > 1.0 ? 1.0 : 0.0;
        EXPECT_NEAR(relative[w], relative[w] > 1.0 ? 3.0 : idle, 0.01);
      }
      ++series[on];
    }
  }
  ASSERT_EQ(series.size(), 6U);  // two groups of eight in each of the three layers
  for (const auto& [on, experts] : series) {
    EXPECT_EQ(experts, 8);
    for (const double value : on) {
      active.add(value);
      weight.add(value > 0.0 ? 3.0 : idle);
    }
    for (const auto& [other, unused] : series) {
      if (other != on) {
        EXPECT_NEAR(correlation(on, other), 0.0, 5.0 / std::sqrt(kWindows));
      }
    }
  }
  EXPECT_NEAR(active.mean(), 0.17, 5.0 * std::sqrt(0.17 * 0.83 / active.n));
  EXPECT_NEAR(weight.mean(), 1.0, 5.0 * std::sqrt(weight.variance() / weight.n));
}

TEST(Synthetic, ABurstLastsAWindowOfFourSteps) {
  const auto routing = make_synthetic({1, 64, 2}, {0, 0.25, 0}, 4);
  int changes = 0;
  for (std::int64_t step = 1; step < 400; ++step) {
    const bool same =
        cosine_distance(loads(*routing, step - 1, 0), loads(*routing, step, 0)) < 1e-4;
    EXPECT_TRUE(same || step % 4 == 0) << step;
    changes += same ? 0 : 1;
  }
  EXPECT_GT(changes, 0);
}

TEST(Synthetic, ShareOfTemporalExpertsFollowsBurst) {
  for (const auto& [burst, experts] :
       std::map<double, std::size_t>{{0.0, 0}, {1.0 / 64, 1}, {0.1, 6}, {0.4, 26}}) {
    const auto routing = make_synthetic({1, 64, 2}, {0, burst, 0}, 4);
    EXPECT_EQ(temporal_loads(*routing, 0, 50).size(), experts) << burst;
  }
}

TEST(Synthetic, WithoutDriftThePopularityStays) {
  const auto routing = make_synthetic({1, 64, 4}, {0.5, 0, 0}, 6);
  for (const std::int64_t lag : {1, 100, 1000000}) {
    EXPECT_LT(cosine_distance(loads(*routing, 0, 0), loads(*routing, lag, 0)), 1e-6);
  }
}

// NOLINTNEXTLINE(readability-function-cognitive-complexity): gtest's macros count
TEST(Synthetic, DriftExchangesItsShareOfThePopularityPerStep) {
  constexpr std::size_t kLayers = 40;
  const auto routing = make_synthetic({kLayers, 64, 4}, {0.5, 0, 0.125}, 6);
  std::vector<double> distance(13, 0.0);
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    const std::vector<double> start = loads(*routing, 0, layer);
    for (const std::size_t lag : {1U, 2U, 4U, 8U, 12U}) {
      const auto now = loads(*routing, static_cast<std::int64_t>(lag), layer);
      distance[lag] += cosine_distance(start, now) / kLayers;
      if (lag == 4) {  // half way to the order of step 8
        const auto end = loads(*routing, 8, layer);
        for (std::size_t e = 0; e < now.size(); ++e) {
          EXPECT_NEAR(now[e] / (0.5 * (start[e] + end[e])), 1.0, 5e-3);
        }
      }
    }
    // after 1 / drift steps the same popularities belong to other experts
    std::vector<double> before = start;
    std::vector<double> after = loads(*routing, 8, layer);
    std::ranges::sort(before);
    std::ranges::sort(after);
    EXPECT_LT(cosine_distance(before, after), 1e-6);
  }
  EXPECT_GT(distance[1], 0.0);
  EXPECT_GT(distance[2], 2.0 * distance[1]);
  EXPECT_GT(distance[4], 2.0 * distance[2]);
  EXPECT_GT(distance[8], 2.0 * distance[4]);
  EXPECT_GT(distance[12], distance[4]);
}

}  // namespace
}  // namespace moevar::workload
