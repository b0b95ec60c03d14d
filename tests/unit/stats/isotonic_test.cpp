#include "stats/isotonic.hpp"

#include <algorithm>
#include <array>
#include <random>

#include <gtest/gtest.h>

namespace moevar::stats {
namespace {

using Values = std::vector<double>;

double squares(const Values& a, const Values& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += (a[i] - b[i]) * (a[i] - b[i]);
  }
  return sum;
}

TEST(Isotonic, LeavesWhatDoesNotFall) {
  EXPECT_TRUE(isotonic_fit(Values{}).empty());
  EXPECT_EQ(isotonic_fit(Values{3.5}), Values{3.5});
  const Values rising{0.0, 1.0, 1.0, 2.5, 1e9};
  EXPECT_EQ(isotonic_fit(rising), rising);
}

TEST(Isotonic, PoolsWhatFalls) {
  EXPECT_EQ(isotonic_fit(Values{1.0, 3.0, 2.0, 4.0}), (Values{1.0, 2.5, 2.5, 4.0}));
  EXPECT_EQ(isotonic_fit(Values{5.0, 4.0, 3.0, 2.0, 1.0}), Values(5, 3.0));
  // a late fall reaches back over pools that had settled
  EXPECT_EQ(isotonic_fit(Values{1.0, 3.0, 2.0, 0.0}), (Values{1.0, 5.0 / 3, 5.0 / 3, 5.0 / 3}));
}

/// For four values of a small grid, every non-decreasing choice from a finer one is no nearer.
TEST(Isotonic, NothingThatRisesIsNearer) {
  constexpr int kLevels = 13;  // of 0 ... 3 in quarters
  std::mt19937 random(7);
  std::uniform_int_distribution<int> draw(0, 3);
  for (int round = 0; round < 100; ++round) {
    Values values(4);
    std::ranges::generate(values, [&] { return static_cast<double>(draw(random)); });
    const auto fit = isotonic_fit(values);
    ASSERT_EQ(fit.size(), values.size());
    EXPECT_TRUE(std::ranges::is_sorted(fit));
    const double found = squares(fit, values);
    for (int code = 0; code < kLevels * kLevels * kLevels * kLevels; ++code) {
      Values other(4);
      for (int i = 0, rest = code; i < 4; ++i, rest /= kLevels) {
        other[static_cast<std::size_t>(i)] = 0.25 * (rest % kLevels);
      }
      if (std::ranges::is_sorted(other)) {
        EXPECT_GE(squares(other, values), found - 1e-12);
      }
    }
  }
}

}  // namespace
}  // namespace moevar::stats
