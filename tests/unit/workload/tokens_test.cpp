#include <gtest/gtest.h>

#include "routing_checks.hpp"

namespace moevar::workload {
namespace {

// [2 steps][2 layers][3 tokens][2 experts of 6]
constexpr const char* kJson = R"({"topk_ids": [
  [[[0, 1], [2, 3], [5, 4]], [[5, 4], [3, 2], [0, 1]]],
  [[[0, 5], [0, 4], [0, 3]], [[1, 5], [1, 4], [1, 3]]]]})";

std::vector<std::int32_t> flat(const Matrix<std::int32_t>& experts) {
  return {experts.flat().begin(), experts.flat().end()};
}

TEST(Tokens, AsManyAsRecordedAreTheRecordedOnesInOrder) {
  const auto routing = make_tokens(kJson, "a.json", {0, 0, 0}, 1);
  EXPECT_EQ(routing->shape().layers, 2);
  EXPECT_EQ(routing->shape().experts, 6);
  EXPECT_EQ(routing->shape().top_k, 2);
  EXPECT_EQ(flat(routing->token_experts(0, 0, 3)), (std::vector<std::int32_t>{0, 1, 2, 3, 5, 4}));
  EXPECT_EQ(flat(routing->token_experts(4, 1, 3)), (std::vector<std::int32_t>{5, 4, 3, 2, 0, 1}));
  EXPECT_EQ(flat(routing->token_experts(3, 1, 3)), (std::vector<std::int32_t>{1, 5, 1, 4, 1, 3}));
  EXPECT_TRUE(std::ranges::equal(sampled(*routing, 1, 3).flat(),
                                 std::vector<std::uint32_t>{3, 0, 0, 1, 1, 1, 0, 3, 0, 1, 1, 1}));
}

TEST(Tokens, OtherNumbersDrawWholeTokensTheSameInAllLayers) {
  const auto routing = make_tokens(kJson, "a.json", {2, 6, 2}, 1);
  for (const std::int64_t tokens : {1, 2, 4, 3000}) {
    for (std::int64_t step = 0; step < 6; ++step) {
      const LayerCounts counts = sampled(*routing, step, tokens);
      expect_valid_counts(counts.row(0), 2, tokens);
      expect_valid_tokens(*routing, step, 0, tokens);
      expect_valid_tokens(*routing, step, 1, tokens);
      const auto first = routing->token_experts(step, 0, tokens);
      const auto second = routing->token_experts(step, 1, tokens);
      for (std::size_t token = 0; token < first.extent(0); ++token) {
        // in step 0 a token's experts in layer 1 are 5 - those in layer 0; in step 1 the second is
        // the same
        EXPECT_EQ(second(token, 1), step % 2 == 0 ? 5 - first(token, 1) : first(token, 1));
      }
    }
  }
}

TEST(Tokens, DrawsAreEvenAndDifferFromStepToStep) {
  const auto routing = make_tokens(kJson, "a.json", {1, 6, 2}, 1);
  const LayerCounts first = sampled(*routing, 0, 30000);
  const LayerCounts third = sampled(*routing, 2, 30000);  // the same recorded step
  for (const std::uint32_t count : first.flat()) {
    EXPECT_NEAR(count, 10000, 5.0 * std::sqrt(30000 * 2.0 / 9.0));
  }
  EXPECT_FALSE(first == third);
  EXPECT_EQ(first, sampled(*make_tokens(kJson, "a.json", {1, 6, 2}, 1), 0, 30000));
  EXPECT_FALSE(first == sampled(*make_tokens(kJson, "a.json", {1, 6, 2}, 2), 0, 30000));
}

TEST(Tokens, WithoutStepsEveryStepReplaysTheOne) {
  const auto routing = make_tokens(R"({"topk_ids": [[[0, 2]], [[1, 0]]]})", "a.json", {1, 0, 2}, 1);
  EXPECT_EQ(routing->shape().layers, 1);
  EXPECT_EQ(routing->shape().experts, 3);
  EXPECT_EQ(flat(routing->token_experts(5, 0, 2)), (std::vector<std::int32_t>{0, 2, 0, 2}));
}

TEST(Tokens, CsvIsTheSameAsJson) {
  const auto json = make_tokens(kJson, "a.json", {0, 0, 2}, 1);
  std::string text = "step,layer,token,expert\n";
  for (int step = 1; step >= 0; --step) {
    for (int layer = 0; layer < 2; ++layer) {
      const auto recorded = json->token_experts(step, layer, 3);
      for (int token = 2; token >= 0; --token) {
        for (const std::int32_t expert : recorded.row(static_cast<std::size_t>(token))) {
          text += std::to_string(step + 4) + "," + std::to_string(layer * 3) + "," +
                  std::to_string(token) + "," + std::to_string(expert) + "\n";
        }
      }
    }
  }
  const auto csv = make_tokens(text, "a.csv", {0, 6, 0}, 1);
  for (std::int64_t step = 0; step < 2; ++step) {
    for (int layer = 0; layer < 2; ++layer) {
      EXPECT_EQ(csv->token_experts(step, layer, 3), json->token_experts(step, layer, 3));
      EXPECT_EQ(csv->token_experts(step, layer, 8), json->token_experts(step, layer, 8));
    }
  }
}

}  // namespace
}  // namespace moevar::workload
