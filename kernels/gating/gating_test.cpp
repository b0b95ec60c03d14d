#include "gating/gating.hpp"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.hpp"

namespace moevar::gating {
namespace {

std::vector<float> values(std::uint64_t key, std::size_t count) {
  std::vector<float> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    all[i] = static_cast<float>(RandomKey(key)[i].normal() * 0.3);
  }
  return all;
}

void compare(const Shape& shape, std::size_t tokens, bool forced) {
  const auto x = values(1, tokens * shape.hidden);
  const auto router = values(2, shape.experts * shape.hidden);
  std::vector<std::int32_t> forced_ids;
  for (std::size_t i = 0; forced && i < tokens * shape.top_k; ++i) {
    forced_ids.push_back(static_cast<std::int32_t>((7 * i + 3) % shape.experts));
  }
  std::vector<float> scores(tokens * shape.experts);
  std::vector<std::int32_t> ids(tokens * shape.top_k, -1);
  std::vector<float> weights(ids.size());
  scores_cpu(shape, x, router, scores);
  if (forced) {
    ids = forced_ids;
  } else {
    choose_top_k_cpu(shape, scores, ids);
  }
  softmax_cpu(shape, scores, ids, weights);

  std::vector<std::int32_t> expected_ids(ids.size());
  std::vector<double> expected(ids.size());
  run_reference(shape, x, router, forced_ids, expected_ids, expected);
  EXPECT_EQ(ids, expected_ids);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_NEAR(weights[i] / expected[i], 1.0, 1e-5) << i;
  }
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto begin = weights.begin() + static_cast<std::ptrdiff_t>(t * shape.top_k);
    EXPECT_NEAR(std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(shape.top_k), 0.0), 1.0,
                1e-6);
  }
}

TEST(Gating, AgreesWithTheReference) {
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{17, 5, 2}, Shape{64, 33, 8}, Shape{31, 6, 6}}) {
    for (const std::size_t tokens : {0U, 1U, 3U, 37U}) {
      compare(shape, tokens, false);
      compare(shape, tokens, true);
    }
  }
}

TEST(Gating, TiesGoToTheLowerExpert) {
  const Shape shape{1, 6, 3};
  const std::vector<float> scores{1, 2, 2, 0, 2, 2,  //
                                  5, 5, 5, 5, 5, 5,  //
                                  0, 0, 0, 0, 0, 9};
  std::vector<std::int32_t> ids(9);
  choose_top_k_cpu(shape, scores, ids);
  EXPECT_EQ(ids, (std::vector<std::int32_t>{1, 2, 4, 0, 1, 2, 5, 0, 1}));

  std::vector<float> weights(9);
  softmax_cpu(shape, scores, ids, weights);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_FLOAT_EQ(weights[i], 1.0F / 3.0F);
  }
}

TEST(Gating, TiesOfTheReferenceGoToTheLowerExpert) {
  const Shape shape{2, 4, 2};
  std::vector<std::int32_t> ids(2);
  std::vector<double> weights(2);
  run_reference(shape, std::vector<float>{1, 1}, std::vector<float>{0, 1, 1, 1, 1, 1, 2, 0}, {},
                ids, weights);
  EXPECT_EQ(ids, (std::vector<std::int32_t>{1, 2}));
}

TEST(Gating, LargeScoresDoNotOverflow) {
  const Shape shape{1, 3, 2};
  std::vector<float> weights(2);
  softmax_cpu(shape, std::vector<float>{3e38F, -3e38F, 3e38F}, std::vector<std::int32_t>{0, 1},
              weights);
  EXPECT_EQ(weights, (std::vector<float>{1.0F, 0.0F}));
  softmax_cpu(shape, std::vector<float>{3e38F, -3e38F, 3e38F}, std::vector<std::int32_t>{2, 0},
              weights);
  EXPECT_EQ(weights, (std::vector<float>{0.5F, 0.5F}));
}

TEST(Gating, CountsItsWork) {
  EXPECT_EQ(flops({10, 4, 2}, 3), 2.0 * 3 * 10 * 4);
  EXPECT_EQ(bytes({10, 4, 2}, 3), 4.0 * (30 + 40 + 12) + 8.0 * 6);
}

}  // namespace
}  // namespace moevar::gating
