#include "fleet/cpu_device.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

namespace moevar::fleet {
namespace {

constexpr expert_ffn::Shape kShape{40, 24};
constexpr std::uint64_t kSeed = 9;

TEST(ExpertWeights, DependOnWhatTheyAreForAlone) {
  ExpertWeights a(kShape);
  ExpertWeights b(kShape);
  a.fill(kSeed, 1, 2);
  b.fill(kSeed, 7, 7);
  b.fill(kSeed, 1, 2);
  EXPECT_TRUE(std::ranges::equal(a.values(), b.values()));
  for (const auto& [seed, layer, expert] :
       {std::tuple{kSeed + 1, 1, 2}, std::tuple{kSeed, 0, 2}, std::tuple{kSeed, 1, 3}}) {
    b.fill(seed, layer, expert);
    EXPECT_NE(a.values()[0], b.values()[0]);
    EXPECT_NE(a.checksum(), b.checksum());
  }
}

TEST(ExpertWeights, VarianceIsOneOverFanIn) {
  ExpertWeights weights({200, 50});
  weights.fill(kSeed, 0, 0);
  const auto view = weights.view();
  const auto variance = [](std::span<const float> values) {
    double sum = 0.0;
    for (const float v : values) {
      sum += static_cast<double>(v) * static_cast<double>(v);
    }
    return sum / static_cast<double>(values.size());
  };
  // 10,000 uniform values: the variance's standard error is 0.9 % of it; 5 of them
  EXPECT_NEAR(variance(view.w1) * 200.0, 1.0, 0.045);
  EXPECT_NEAR(variance(view.w3) * 200.0, 1.0, 0.045);
  EXPECT_NEAR(variance(view.w2) * 50.0, 1.0, 0.045);
  std::vector<float> x(10'000);
  fill_activations(kSeed, 0, 100, x);
  EXPECT_NEAR(variance(x), 1.0, 0.045);
}

TEST(ExpertWeights, ActivationsBelongToTheTokenNotToTheDevice) {
  std::vector<float> all(12);
  std::vector<float> later(8);
  fill_activations(kSeed, 5, 4, all);
  fill_activations(kSeed, 6, 4, later);
  EXPECT_TRUE(std::equal(later.begin(), later.end(), all.begin() + 4));
}

TEST(ExpertWeights, ChecksumSeesEveryBitAndEveryOrder) {
  ExpertWeights weights({9, 5});
  weights.fill(kSeed, 3, 4);
  const auto right = weights.checksum();
  EXPECT_EQ(right, expected_checksum({9, 5}, kSeed, 3, 4));
  for (std::size_t i = 0; i < weights.values().size(); i += 7) {
    for (std::uint32_t bit = 0; bit < 32; ++bit) {
      float& value = weights.values()[i];
      const float before = value;
      std::uint32_t word = 0;
      std::memcpy(&word, &value, sizeof word);
      word ^= 1U << bit;
      std::memcpy(&value, &word, sizeof word);
      EXPECT_NE(weights.checksum(), right);
      value = before;
    }
  }
  std::swap(weights.values()[0], weights.values()[1]);
  EXPECT_NE(weights.checksum(), right);
}

TEST(ExpertWeights, ExpectedChecksumHoldsOverSeveralPieces) {
  const expert_ffn::Shape shape{100, 99};  // 9900 values a matrix: pieces of 4096 and a rest
  ExpertWeights weights(shape);
  weights.fill(kSeed, 0, 1);
  EXPECT_EQ(weights.checksum(), expected_checksum(shape, kSeed, 0, 1));
}

TEST(CpuDevice, RunsEverySlotWithItsOwnExpert) {
  CpuDevice device(kShape, kSeed, 2, 3);
  device.load(0, std::vector<std::int32_t>{4, 1, 4});
  device.load(1, std::vector<std::int32_t>{0, 2, 3});
  EXPECT_EQ(device.at(0, 0).weights, device.at(0, 2).weights) << "twins share memory";
  const std::vector<std::int64_t> rows{2, 0, 3};
  std::vector<float> x(5 * kShape.hidden);
  fill_activations(kSeed, 0, kShape.hidden, x);
  for (const int layer : {0, 1}) {
    std::vector<float> y(x.size());
    device.run_experts(layer, rows, x, y);
    std::vector<double> expected(x.size());
    ExpertWeights first(kShape);
    ExpertWeights third(kShape);
    first.fill(kSeed, layer, layer == 0 ? 4 : 0);
    third.fill(kSeed, layer, layer == 0 ? 4 : 3);
    const std::vector<expert_ffn::Group> groups{{first.view(), 2}, {third.view(), 3}};
    expert_ffn::run_reference(kShape, groups, x, expected);
    for (std::size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(y[i], expected[i], 1e-5);
    }
  }
}

TEST(CpuDevice, FreedStorageIsUsedAgain) {
  CpuDevice device(kShape, kSeed, 1, 2);
  device.load(0, std::vector<std::int32_t>{0, 1});
  const auto* first = device.at(0, 0).weights.get();
  auto arriving = device.take_spare();
  arriving->fill(kSeed, 0, 5);
  device.place(0, {{5, arriving}, device.at(0, 1)});
  arriving.reset();
  EXPECT_EQ(device.find(0, 0), nullptr);
  ASSERT_NE(device.find(0, 5), nullptr);
  EXPECT_EQ(device.find(0, 5)->weights->checksum(), device.expected_checksum(0, 5));
  EXPECT_EQ(device.find(0, 1)->weights->checksum(), device.expected_checksum(0, 1));
  EXPECT_EQ(device.take_spare().get(), first);
}

}  // namespace
}  // namespace moevar::fleet
