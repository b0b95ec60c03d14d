#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "routing_checks.hpp"

namespace moevar::workload {
namespace {

std::string slurp(const std::filesystem::path& path) {
  const std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Counts, LoadsFollowTheRecordedShares) {
  const auto routing = make_counts(
      R"({"logical_count": [[10, 20, 30, 40], [25.5, 25.5, 25.5, 25.5]]})", "a.json", {0, 0, 2}, 1);
  EXPECT_EQ(routing->shape().layers, 2);
  EXPECT_EQ(routing->shape().experts, 4);
  constexpr std::int64_t kTokens = 1000;
  constexpr int kSteps = 2000;
  std::vector<Moments> moments(8);
  for (int step = 0; step < kSteps; ++step) {
    const LayerCounts counts = sampled(*routing, step, kTokens);
    expect_valid_counts(counts.row(0), 2, kTokens);
    expect_valid_counts(counts.row(1), 2, kTokens);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      moments[i].add(counts.flat()[i]);
    }
  }
  const std::vector<double> pi{0.2, 0.4, 0.6, 0.8, 0.5, 0.5, 0.5, 0.5};
  for (std::size_t i = 0; i < pi.size(); ++i) {
    const double variance = kTokens * pi[i] * (1 - pi[i]);
    EXPECT_NEAR(moments[i].mean(), kTokens * pi[i], 5.0 * std::sqrt(variance / kSteps));
  }
}

TEST(Counts, StepsAreReplayedInTurn) {
  const auto routing =
      make_counts(R"({"logical_count": [[[1, 1, 0, 0]], [[0, 0, 1, 1]], [[1, 0, 0, 1]]]})",
                  "a.json", {0, 0, 2}, 1);
  const std::vector<std::vector<std::uint32_t>> expected{{7, 7, 0, 0}, {0, 0, 7, 7}, {7, 0, 0, 7}};
  for (std::int64_t step = 0; step < 9; ++step) {
    const LayerCounts counts = sampled(*routing, step, 7);
    EXPECT_TRUE(std::ranges::equal(counts.flat(), expected[static_cast<std::size_t>(step % 3)]));
    expect_valid_tokens(*routing, step, 0, 7);
  }
}

TEST(Counts, DenseLayersAreSkippedAndTheFirstOnesTaken) {
  const std::string text =
      R"({"logical_count": [[0, 0, 0], [5, 0, 0], [0.0, 0, 0], [0, 5, 0], [0, 0, 5]]})";
  const LayerCounts all = sampled(*make_counts(text, "a.json", {0, 3, 1}, 1), 0, 4);
  EXPECT_TRUE(
      std::ranges::equal(all.flat(), std::vector<std::uint32_t>{4, 0, 0, 0, 4, 0, 0, 0, 4}));
  const LayerCounts two = sampled(*make_counts(text, "a.json", {2, 3, 1}, 1), 0, 4);
  EXPECT_TRUE(std::ranges::equal(two.flat(), std::vector<std::uint32_t>{4, 0, 0, 0, 4, 0}));
}

TEST(Counts, ALayerThatIsEmptyInOneStepTakesItsMean) {
  const auto routing = make_counts(R"({"logical_count": [[[1, 0], [0, 1]], [[0, 0], [0, 1]]]})",
                                   "a.json", {0, 2, 1}, 1);
  EXPECT_EQ(routing->shape().layers, 2);
  EXPECT_TRUE(
      std::ranges::equal(sampled(*routing, 1, 3).flat(), std::vector<std::uint32_t>{3, 0, 0, 3}));
}

TEST(Counts, CsvIsTheSameAsJson) {
  const auto json = make_counts(R"({"logical_count": [[[0, 0], [1, 2]], [[0, 0], [3, 4e0]]]})",
                                "a.json", {0, 0, 1}, 1);
  const auto csv =
      make_counts("count, expert,layer,step\r\n2,1,9,10\r\n4,1,9,12\r\n\r\n1,0,9,10\r\n3.0,0,9,12",
                  "a.csv", {1, 2, 1}, 1);
  const auto no_steps = make_counts("layer,expert,count\n3,0,1\n3,1,2\n", "b.csv", {0, 0, 1}, 1);
  for (std::int64_t step = 0; step < 4; ++step) {
    EXPECT_EQ(sampled(*csv, step, 1000), sampled(*json, step, 1000));
  }
  EXPECT_EQ(sampled(*no_steps, 2, 1000), sampled(*json, 2, 1000));
}

TEST(Counts, LargestCountsAndFewestExperts) {
  const auto routing =
      make_counts(R"({"logical_count": [[9007199254740992, 1e-300, 0]]})", "a.json", {0, 0, 1}, 1);
  expect_valid_counts(sampled(*routing, 0, 100).flat(), 1, 100);
  const auto one = make_counts(R"({"logical_count": [[7]]})", "a.json", {0, 0, 1}, 1);
  EXPECT_EQ(sampled(*one, 0, 4)(0, 0), 4U);
}

/// Busiest device's tokens over the mean, averaged over layers; experts in equal contiguous blocks.
double imbalance(const LayerCounts& counts, std::size_t devices) {
  const std::size_t block = counts.extent(1) / devices;
  double sum = 0.0;
  for (std::size_t layer = 0; layer < counts.extent(0); ++layer) {
    std::vector<double> tokens(devices, 0.0);
    for (std::size_t e = 0; e < counts.extent(1); ++e) {
      tokens[e / block] += counts(layer, e);
    }
    const double mean =
        std::accumulate(tokens.begin(), tokens.end(), 0.0) / static_cast<double>(devices);
    sum += *std::ranges::max_element(tokens) / mean;
  }
  return sum / static_cast<double>(counts.extent(0));
}

TEST(Counts, ReproduceTheImbalanceOfPublishedDeepSeekCounts) {
  const std::filesystem::path path =
      std::filesystem::path(MOEVAR_SHARED_DATA) / "deepseek-v3-expert-counts/prefill_in1024.json";
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << "the published DeepSeek-V3 counts are not on this machine";
  }
  const auto routing = make_counts(slurp(path), path, {58, 256, 8}, 1);
  EXPECT_EQ(make_counts(slurp(path), path, {0, 0, 8}, 1)->shape().layers, 58);
  EXPECT_NEAR(imbalance(sampled(*routing, 0, 8LL * 4096), 8), 1.67, 0.02);
  EXPECT_NEAR(imbalance(sampled(*routing, 0, 32LL * 4096), 32), 2.29, 0.03);
}

TEST(Counts, ReproduceRecordedOlmoeLoads) {
  const std::filesystem::path path =
      std::filesystem::path(MOEVAR_SHARED_DATA) / "olmoe-mixtral-expert-counts/expert_counts.csv";
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << "the OLMoE counts are not on this machine";
  }
  // the file holds two models and several domains; one of them, without these columns, is a trace
  const std::string begin = "olmoe,arxiv,";
  std::stringstream file(slurp(path));
  std::string trace = "layer,expert,count\n";
  std::vector<double> recorded;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(begin)) {
      trace += line.substr(begin.size()) + "\n";
      recorded.push_back(std::stod(line.substr(line.rfind(',') + 1)));
    }
  }
  const auto routing = make_counts(trace, "olmoe.csv", {3, 64, 8}, 1);
  constexpr std::int64_t kTokens = 208896;
  const LayerCounts counts = sampled(*routing, 0, kTokens);
  ASSERT_EQ(recorded.size(), counts.size());
  for (std::size_t layer = 0; layer < 3; ++layer) {
    const double total =
        std::accumulate(recorded.begin() + static_cast<long>(64 * layer),
                        recorded.begin() + static_cast<long>(64 * layer + 64), 0.0);
    for (std::size_t e = 0; e < 64; ++e) {
      const double pi = 8.0 * recorded[64 * layer + e] / total;
      EXPECT_NEAR(counts(layer, e), pi * kTokens, 5.0 * std::sqrt(pi * kTokens));
    }
  }
}

}  // namespace
}  // namespace moevar::workload
