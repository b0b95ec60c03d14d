#include "base/random.hpp"

#include <cmath>
#include <set>

#include <gtest/gtest.h>

namespace moevar {
namespace {

TEST(Random, MixOfZeroIsSplitMixFirstOutput) { EXPECT_EQ(mix(0), 0xE220A8397B1DCDAFULL); }

TEST(Random, KeysGiveTheReferenceDraws) {
  EXPECT_EQ(RandomKey(1)[0][1].bits(), 0x6C5795E14B3B7E33ULL);
  EXPECT_EQ(RandomKey(1)[0][2].bits(), 0x1CF38A51A82265F3ULL);
  EXPECT_EQ(RandomKey(1)[1][1].bits(), 0x7095BEEBD76575E4ULL);
  EXPECT_EQ(RandomKey(42)[1023][8].bits(), 0xD81E7E3416D80A66ULL);
  EXPECT_NEAR(RandomKey(1)[0][1].uniform(), 0.423211448196, 1e-12);
  EXPECT_NEAR(RandomKey(1)[0][1].normal(), -0.193685, 5e-7);
  EXPECT_NEAR(RandomKey(1)[0][2].normal(), -1.210252, 5e-7);
  EXPECT_NEAR(RandomKey(1)[1][1].normal(), -0.151514, 5e-7);
  EXPECT_NEAR(RandomKey(42)[1023][8].normal(), 1.011934, 5e-7);
}

TEST(Random, NormalQuantileInvertsTheDistribution) {
  for (const double u :
       {1e-300, 1e-12, 1e-6, 0.01, 0.0749, 0.0751, 0.3, 0.5, 0.7, 0.99, 1 - 1e-9}) {
    const double z = normal_quantile(u);
    EXPECT_NEAR(0.5 * std::erfc(-z / std::sqrt(2.0)) / u, 1.0, 1e-9) << u;
  }
}

TEST(Random, BelowStaysInRangeAndReachesAll) {
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const auto value = RandomKey(3)[i].below(7);
    ASSERT_LT(value, 7U);
    seen.insert(value);
  }
  EXPECT_EQ(seen.size(), 7U);
}

}  // namespace
}  // namespace moevar
