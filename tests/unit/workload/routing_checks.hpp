#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "base/tensor.hpp"
#include "workload/routing.hpp"

namespace moevar::workload {

using LayerCounts = Matrix<std::uint32_t>;  ///< [layers][experts]

inline LayerCounts sampled(const Routing& routing, std::int64_t step, std::int64_t tokens) {
  const RoutingShape shape = routing.shape();
  LayerCounts counts(
      {static_cast<std::size_t>(shape.layers), static_cast<std::size_t>(shape.experts)});
  routing.sample(step, tokens, counts.flat());
  return counts;
}

/// The two promises of every sample: the sum, and no token twice at an expert.
inline void expect_valid_counts(std::span<const std::uint32_t> counts, int top_k,
                                std::int64_t tokens) {
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}), tokens * top_k);
  EXPECT_LE(*std::ranges::max_element(counts), tokens);
}

/// No expert twice in a token, and the histogram is the sample's row.
inline void expect_valid_tokens(const Routing& routing, std::int64_t step, int layer,
                                std::int64_t tokens) {
  const RoutingShape shape = routing.shape();
  const Matrix<std::int32_t> experts = routing.token_experts(step, layer, tokens);
  ASSERT_EQ(experts.extent(0), static_cast<std::size_t>(tokens));
  ASSERT_EQ(experts.extent(1), static_cast<std::size_t>(shape.top_k));
  std::vector<std::uint32_t> histogram(static_cast<std::size_t>(shape.experts), 0);
  for (std::size_t token = 0; token < experts.extent(0); ++token) {
    const auto row = experts.row(token);
    ASSERT_EQ(std::set<std::int32_t>(row.begin(), row.end()).size(), row.size()) << token;
    for (const std::int32_t expert : row) {
      ASSERT_GE(expert, 0);
      ASSERT_LT(expert, shape.experts);
      ++histogram[static_cast<std::size_t>(expert)];
    }
  }
  const LayerCounts counts = sampled(routing, step, tokens);
  const auto expected = counts.row(static_cast<std::size_t>(layer));
  EXPECT_TRUE(std::ranges::equal(histogram, expected));
}

/// Mean and variance of independent observations.
struct Moments {
  double n = 0.0;
  double sum = 0.0;
  double squares = 0.0;
  void add(double value) {
    n += 1.0;
    sum += value;
    squares += value * value;
  }
  [[nodiscard]] double mean() const { return sum / n; }
  [[nodiscard]] double variance() const { return (squares - sum * sum / n) / (n - 1.0); }
};

inline double correlation(std::span<const double> a, std::span<const double> b) {
  Moments first, second;
  double product = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    first.add(a[i]);
    second.add(b[i]);
    product += a[i] * b[i];
  }
  return (product / first.n - first.mean() * second.mean()) * first.n / (first.n - 1.0) /
         std::sqrt(first.variance() * second.variance());
}

}  // namespace moevar::workload
