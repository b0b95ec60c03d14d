#include "stats/autocorrelation.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.hpp"

namespace moevar::stats {
namespace {

/// x(t) = rho x(t - 1) + noise, in its stationary state.
std::vector<double> ar1(double rho, std::size_t n, std::uint64_t seed) {
  std::vector<double> series(n);
  double x = RandomKey(seed)[0].normal();
  for (std::size_t t = 0; t < n; ++t) {
    series[t] = 100.0 + x;
    x = rho * x + std::sqrt(1.0 - rho * rho) * RandomKey(seed)[t + 1].normal();
  }
  return series;
}

// n (1 - rho) / (1 + rho), the known value of this process; 20 series of 4,000 average out the
// estimate's own scatter.
TEST(EffectiveSampleSize, OfAutoregressiveSeries) {
  constexpr std::size_t kLength = 4000;
  for (const double rho : {0.0, 0.3, 0.7, 0.9}) {
    double mean = 0.0;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      mean += effective_sample_size(ar1(rho, kLength, seed)) / 20.0;
    }
    const double expected = kLength * (1.0 - rho) / (1.0 + rho);
    EXPECT_NEAR(mean / expected, 1.0, 0.1) << rho;
  }
}

TEST(EffectiveSampleSize, NeverMoreThanThereAre) {
  std::vector<double> alternating;
  for (int t = 0; t < 100; ++t) {
    alternating.push_back(t % 2 == 0 ? 1.0 : -1.0);
  }
  EXPECT_EQ(effective_sample_size(alternating), 100.0);
}

TEST(EffectiveSampleSize, OfATrendIsSmall) {
  std::vector<double> rising;
  for (int t = 0; t < 200; ++t) {
    rising.push_back(t);
  }
  EXPECT_LT(effective_sample_size(rising), 10.0);
  EXPECT_GE(effective_sample_size(rising), 1.0);
}

TEST(EffectiveSampleSize, OfLittleOrNothing) {
  EXPECT_EQ(effective_sample_size({}), 0.0);
  EXPECT_EQ(effective_sample_size(std::vector{3.0}), 1.0);
  EXPECT_EQ(effective_sample_size(std::vector{3.0, 3.0, 3.0}), 3.0);
}

}  // namespace
}  // namespace moevar::stats
