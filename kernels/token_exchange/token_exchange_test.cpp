#include "token_exchange/token_exchange.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "base/random.hpp"

namespace moevar::token_exchange {
namespace {

std::vector<float> values(std::uint64_t key, std::size_t count) {
  std::vector<float> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    all[i] = static_cast<float>(RandomKey(key)[i].normal());
  }
  return all;
}

std::vector<std::int32_t> random_slots(std::size_t rows, std::size_t slots) {
  std::vector<std::int32_t> all(rows);
  for (std::size_t i = 0; i < rows; ++i) {
    all[i] = static_cast<std::int32_t>(RandomKey(5)[i].below(slots));
  }
  return all;
}

struct Case {
  std::size_t hidden, tokens, top_k, slots;
};
const std::vector<Case> kCases = {{1, 1, 1, 1},  {5, 0, 2, 3},   {7, 13, 3, 11},
                                  {3, 40, 2, 1}, {16, 9, 4, 64}, {31, 33, 8, 12}};

TEST(TokenExchange, PlanIsAStableCountingSort) {
  const std::vector<std::int32_t> slots{2, 0, 2, 1, 0, 2};
  Permutation permutation(slots.size(), 4);
  plan(slots, permutation);
  EXPECT_EQ(permutation.place, (std::vector<std::uint32_t>{3, 0, 4, 2, 1, 5}));
  EXPECT_EQ(permutation.rows_per_slot, (std::vector<std::int64_t>{2, 1, 3, 0}));
  plan(std::vector<std::int32_t>{3, 3, 3, 3, 3, 0}, permutation);
  EXPECT_EQ(permutation.place, (std::vector<std::uint32_t>{1, 2, 3, 4, 5, 0}));
  EXPECT_EQ(permutation.rows_per_slot, (std::vector<std::int64_t>{1, 0, 0, 5}));
}

TEST(TokenExchange, AgreesWithTheReference) {
  for (const auto& c : kCases) {
    const std::size_t count = c.tokens * c.top_k;
    const auto slots = random_slots(count, c.slots);
    const auto x = values(1, c.tokens * c.hidden);
    const auto weights = values(2, count);
    Permutation permutation(count, c.slots);
    plan(slots, permutation);
    std::vector<float> rows(count * c.hidden);
    permute_cpu(c.hidden, c.top_k, permutation, x, rows);
    std::vector<double> expected(rows.size());
    permute_reference(c.hidden, c.top_k, slots, x, expected);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      ASSERT_EQ(rows[i], expected[i]) << i;
    }
    std::vector<float> y(x.size(), 99.0F);
    unpermute_cpu(c.hidden, c.top_k, permutation, rows, weights, y);
    std::vector<double> expected_y(y.size());
    unpermute_reference(c.hidden, c.top_k, slots, rows, weights, expected_y);
    for (std::size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(y[i], expected_y[i], 1e-5) << i;
    }
  }
}

/// Weights 2^-k are exact, so what goes out and comes back unchanged sums to x (2 - 2^(1-top_k)).
TEST(TokenExchange, RoundTripGivesTheTokensBack) {
  for (const auto& c : kCases) {
    const std::size_t count = c.tokens * c.top_k;
    std::vector<float> x(c.tokens * c.hidden);
    std::iota(x.begin(), x.end(), 1.0F);
    std::vector<float> weights(count);
    for (std::size_t i = 0; i < count; ++i) {
      weights[i] = std::ldexp(1.0F, -static_cast<int>(i % c.top_k));
    }
    Permutation permutation(count, c.slots);
    plan(random_slots(count, c.slots), permutation);
    std::vector<float> rows(count * c.hidden);
    std::vector<float> y(x.size());
    permute_cpu(c.hidden, c.top_k, permutation, x, rows);
    unpermute_cpu(c.hidden, c.top_k, permutation, rows, weights, y);
    const float sum = 2.0F - std::ldexp(1.0F, 1 - static_cast<int>(c.top_k));
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i], x[i] * sum);
    }
  }
}

TEST(TokenExchange, GroupBringsSlotsTogether) {
  // three sources, two slots; a row holds 100 source + 10 slot + index, twice
  const std::vector<std::int64_t> counts{2, 1, 0, 2, 1, 0};
  const std::vector<float> arrived{0, 0, 1, 1, 10, 10, 110, 110, 111, 111, 200, 200};
  std::vector<float> grouped(arrived.size());
  std::vector<std::int64_t> next(2);
  group_cpu(2, counts, next, arrived, grouped);
  EXPECT_EQ(grouped, (std::vector<float>{0, 0, 1, 1, 200, 200, 10, 10, 110, 110, 111, 111}));
  std::vector<float> back(arrived.size());
  ungroup_cpu(2, counts, next, grouped, back);
  EXPECT_EQ(back, arrived);
}

TEST(TokenExchange, UngroupUndoesGroup) {
  for (const std::size_t sources : {1U, 2U, 5U}) {
    for (const std::size_t slots : {1U, 3U, 8U}) {
      std::vector<std::int64_t> counts(sources * slots);
      std::int64_t rows = 0;
      for (std::size_t i = 0; i < counts.size(); ++i) {
        counts[i] = static_cast<std::int64_t>(RandomKey(9)[sources][slots][i].below(4));
        rows += counts[i];
      }
      std::vector<float> arrived(static_cast<std::size_t>(rows) * 3);
      std::iota(arrived.begin(), arrived.end(), 0.0F);
      std::vector<float> grouped(arrived.size());
      std::vector<float> back(arrived.size());
      std::vector<std::int64_t> next(slots);
      group_cpu(3, counts, next, arrived, grouped);
      ungroup_cpu(3, counts, next, grouped, back);
      EXPECT_EQ(back, arrived);
      std::sort(grouped.begin(), grouped.end());
      EXPECT_EQ(grouped, arrived);
    }
  }
}

TEST(TokenExchange, CountsItsWork) {
  EXPECT_EQ(bytes(10, 3, 2), 4.0 * 10 * 3 * 3);
  EXPECT_EQ(flops(10, 3, 2), 2.0 * 10 * 3 * 2);
}

}  // namespace
}  // namespace moevar::token_exchange
