#include "expert_ffn/expert_ffn.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <gtest/gtest.h>

#include "base/random.hpp"

namespace moevar::expert_ffn {
namespace {

std::vector<float> values(std::uint64_t key, std::size_t count, double scale) {
  std::vector<float> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    all[i] = static_cast<float>(scale * RandomKey(key)[i].normal());
  }
  return all;
}

struct Case {
  Shape shape;
  std::vector<std::size_t> rows;  ///< of every expert
  std::size_t block_rows;
  double scale = 1.0;  ///< of the input
};

/// Largest over rows of |y - reference| / |reference|, Euclidean norms; -1 where a row is missing.
double worst_error(const Case& c) {
  const std::size_t matrix = c.shape.hidden * c.shape.intermediate;
  std::vector<std::vector<float>> weights;
  std::vector<Group> groups;
  std::size_t total = 0;
  const double spread = 1.0 / std::sqrt(static_cast<double>(c.shape.hidden));
  for (std::size_t e = 0; e < c.rows.size(); ++e) {
    for (std::size_t m = 0; m < 3; ++m) {
      weights.push_back(values(100 * e + m, matrix, spread));
    }
  }
  for (std::size_t e = 0; e < c.rows.size(); ++e) {
    groups.push_back({{weights[3 * e], weights[3 * e + 1], weights[3 * e + 2]}, c.rows[e]});
    total += c.rows[e];
  }
  const auto x = values(7, total * c.shape.hidden, c.scale);
  std::vector<float> y(x.size(), std::nanf(""));
  std::vector<double> expected(x.size());
  Workspace workspace(c.shape, c.block_rows);
  run_cpu(c.shape, groups, x, y, workspace);
  run_reference(c.shape, groups, x, expected);
  double worst = 0.0;
  for (std::size_t row = 0; row < total; ++row) {
    double difference = 0.0;
    double norm = 0.0;
    for (std::size_t i = row * c.shape.hidden; i < (row + 1) * c.shape.hidden; ++i) {
      difference += std::pow(static_cast<double>(y[i]) - expected[i], 2);
      norm += expected[i] * expected[i];
    }
    const double error = std::sqrt(difference / norm);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst;
}

TEST(ExpertFfn, AgreesWithTheReferenceForAwkwardShapes) {
  const std::vector<Case> cases = {
      {{1, 1}, {1}, 512},           {{7, 5}, {0, 1, 2, 0, 3}, 512}, {{33, 65}, {13, 0, 1}, 4},
      {{128, 64}, {17, 31, 5}, 16}, {{61, 127}, {1, 1, 1}, 1},      {{96, 200}, {129}, 128},
  };
  for (const Case& c : cases) {
    EXPECT_LT(worst_error(c), 5e-6) << c.shape.hidden << " x " << c.shape.intermediate;
  }
}

TEST(ExpertFfn, NoRowsWriteNothing) {
  Workspace workspace({8, 8});
  std::vector<float> untouched(8, 3.0F);
  const std::vector<Group> groups(3);
  run_cpu({8, 8}, groups, {}, untouched, workspace);
  EXPECT_EQ(untouched, std::vector<float>(8, 3.0F));
  run_cpu({8, 8}, {}, {}, untouched, workspace);
  EXPECT_EQ(untouched, std::vector<float>(8, 3.0F));
}

/// One row, one hidden element, unit weights: y = silu(x) * x, over the whole range of the
/// activation and where e^-x leaves single precision's range.
TEST(ExpertFfn, ActivationHoldsOverItsRange) {
  const Shape shape{1, 1};
  const std::vector<float> one{1.0F};
  const std::vector<Group> groups{{{one, one, one}, 1}};
  Workspace workspace(shape);
  for (int i = -700; i <= 700; ++i) {
    const float x = 0.173F * static_cast<float>(i);
    std::vector<float> y(1);
    run_cpu(shape, groups, std::vector<float>{x}, y, workspace);
    const double exact =
        static_cast<double>(x) * static_cast<double>(x) / (1.0 + std::exp(-static_cast<double>(x)));
    // below -87 the factor 1 / (1 + e^-x) is held at e^-88 or above: x * x * e^-87 < 3e-34
    EXPECT_NEAR(y[0], exact, 1e-6 * std::abs(exact) + 3e-34) << x;
  }
}

TEST(ExpertFfn, SaturatedInputsStayRight) {
  EXPECT_LT(worst_error({{24, 40}, {9, 4}, 512, 50.0}), 5e-6);
}

TEST(ExpertFfn, CountsItsWork) {
  EXPECT_EQ(flops({10, 20}, 3), 6.0 * 3 * 10 * 20);
  const std::vector<Group> groups{{{}, 3}, {{}, 0}, {{}, 2}};
  EXPECT_EQ(bytes({10, 20}, groups), 4.0 * (2 * 3 * 10 * 20 + 2 * 5 * 10));
}

TEST(ExpertFfn, CountsItsBytesOnAGpu) {
  EXPECT_EQ(slot_bytes({16, 32}, Precision::bf16), 2U * 3 * 16 * 32);
  EXPECT_EQ(slot_bytes({16, 32}, Precision::fp8), 3U * 16 * 32 + 256);
  const std::vector<std::size_t> rows{3, 0, 2};
  EXPECT_EQ(device_bytes({16, 32}, Precision::bf16, rows), 2.0 * (2 * 3 * 16 * 32 + 2 * 5 * 16));
  EXPECT_EQ(device_bytes({16, 32}, Precision::fp8, rows), 2.0 * 3 * 16 * 32 + 2.0 * 2 * 5 * 16);
}

}  // namespace
}  // namespace moevar::expert_ffn
