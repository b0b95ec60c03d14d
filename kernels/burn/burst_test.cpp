#include "burn/burst.hpp"

#include <gtest/gtest.h>

#include "base/random.hpp"

namespace moevar::burn {
namespace {

TEST(Burst, FillsItsShareOfThePeriod) {
  EXPECT_EQ(products_per_burst(0.002, 1.0), 10);
  EXPECT_EQ(products_per_burst(0.002, 0.5), 5);
  EXPECT_EQ(products_per_burst(0.002, 0.16), 2);
  EXPECT_EQ(products_per_burst(0.002, 0.01), 1);
  EXPECT_EQ(products_per_burst(0.5, 1.0), 1);
  EXPECT_EQ(products_per_burst(0.0, 1.0), 1'000'000);
}

/// Whatever whole number of products a burst has, over many bursts the duty is as asked.
TEST(Burst, TheRestMakesUpForWholeProducts) {
  for (const double duty : {0.01, 0.1, 0.33, 0.75, 0.99}) {
    for (const double product : {0.0003, 0.0016, 0.007, 0.05}) {
      const double busy = products_per_burst(product, duty) * product;
      EXPECT_NEAR(busy / period_after(busy, duty), duty, 1e-12);
      if (product < 0.2 * duty * kPeriodSeconds) {
        EXPECT_NEAR(period_after(busy, duty), kPeriodSeconds, 0.11 * kPeriodSeconds);
      }
    }
  }
}

TEST(Burst, MatricesHalveUntilTheyFit) {
  constexpr std::uint64_t kThree = std::uint64_t{6} * 8192 * 8192;
  EXPECT_EQ(size_that_fits(8192, kThree), 8192);
  EXPECT_EQ(size_that_fits(8192, kThree - 1), 4096);
  EXPECT_EQ(size_that_fits(8192, kThree / 16), 2048);
  EXPECT_EQ(size_that_fits(8192, 0), 1024);
  EXPECT_EQ(size_that_fits(1500, 0), 1500);
}

TEST(Burst, NumbersAreNormal) {
  constexpr int kCount = 200'000;
  double sum = 0.0;
  double squares = 0.0;
  double fourth = 0.0;
  int beyond_two = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double x = static_cast<double>(normal_from(RandomKey(1)[i].bits()));
    ASSERT_TRUE(x > -8.0 && x < 8.0);
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    beyond_two += x > 2.0 || x < -2.0 ? 1 : 0;
  }
  // four standard errors of each
  EXPECT_NEAR(sum / kCount, 0.0, 4.0 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1.0, 4.0 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(fourth / kCount, 3.0, 4.0 * std::sqrt(96.0 / kCount));
  EXPECT_NEAR(beyond_two / static_cast<double>(kCount), 0.0455, 4.0 * std::sqrt(0.0455 / kCount));
  // the ends of the bits' range
  EXPECT_LT(normal_from(0), 6.0F);
  EXPECT_GE(normal_from(~std::uint64_t{0}), 0.0F);
}

}  // namespace
}  // namespace moevar::burn
