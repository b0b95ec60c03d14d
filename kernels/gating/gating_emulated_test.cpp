#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "emulated_grid.hpp"
#include "gating/gating.hpp"
#include "gating/gating_device.cuh"

/// The GPU's kernels, whole, on a grid of the host's threads.
namespace moevar::gating {
namespace {

using emulated::launch;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void expect_weights(const std::vector<float>& weights, const std::vector<float>& expected) {
  for (std::size_t i = 0; i < weights.size(); ++i) {
    ASSERT_NEAR(weights[i], expected[i], 1e-6F + 1e-5F * expected[i]) << i;  // a NaN fails
  }
}

/// `levels`: how many different scores there are; with few of them, many tie.
template <std::uint32_t kHeld>
void check(std::uint32_t experts, std::uint32_t top_k, std::uint32_t tokens, std::uint64_t levels) {
  SCOPED_TRACE(testing::Message() << experts << " experts, " << levels << " scores");
  const Shape shape{1, experts, top_k};
  ASSERT_EQ(held_for(experts), kHeld);
  std::vector<float> scores(std::size_t{tokens} * experts);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = 4.0F * static_cast<float>(RandomKey(1)[experts][i].below(levels)) /
                    static_cast<float>(levels) -
                2.0F;
  }
  std::vector<std::int32_t> expected_ids(std::size_t{tokens} * top_k);
  std::vector<float> expected(expected_ids.size());
  choose_top_k_cpu(shape, scores, expected_ids);
  softmax_cpu(shape, scores, expected_ids, expected);

  const unsigned blocks = (tokens * kLanes + kThreads - 1) / kThreads;
  std::vector<std::int32_t> ids(expected_ids.size(), -1);
  std::vector<float> weights(ids.size(), kNan);
  launch(blocks, kThreads, [&] {
    choose_top_k<kHeld>(tokens, experts, top_k, scores.data(), ids.data(), weights.data());
  });
  EXPECT_EQ(ids, expected_ids);
  expect_weights(weights, expected);

  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>((7 * i + 3) % experts);
  }
  softmax_cpu(shape, scores, ids, expected);
  std::ranges::fill(weights, kNan);
  launch(blocks, kThreads,
         [&] { weigh(tokens, experts, top_k, scores.data(), ids.data(), weights.data()); });
  expect_weights(weights, expected);
}

TEST(GatingEmulated, ChoosesAndWeighsAsTheCpu) {
  for (const std::uint64_t levels : {3ULL, 1ULL << 30U}) {
    check<1>(1, 1, 3, levels);
    check<1>(31, 8, 5, levels);
    check<2>(33, 32, 7, levels);
    check<4>(128, 8, 4, levels);
    check<8>(256, 8, 9, levels);
    check<16>(511, 31, 5, levels);
  }
}

}  // namespace
}  // namespace moevar::gating
