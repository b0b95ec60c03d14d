#include "exchange/cost_model.hpp"

#include <gtest/gtest.h>

namespace moevar::exchange {
namespace {

constexpr Links kH100{.devices_per_node = 8,
                      .intra_gb_s = 185,
                      .inter_gb_s = 50,
                      .intra_latency_us = 29,
                      .inter_latency_us = 47};

TEST(AllToAllCost, OneDeviceExchangesNothing) {
  EXPECT_EQ(AllToAllCost(kH100, 1, 7168).time_ns(1'000'000), 0);
}

TEST(AllToAllCost, OneNodeUsesItsLinks) {
  // 7/8 of 1000 tokens of 7168 bytes over 185 GB/s, after 29 us
  EXPECT_EQ(AllToAllCost(kH100, 8, 7168).time_ns(1000), 29'000 + 33'903);
  EXPECT_EQ(AllToAllCost(kH100, 2, 7168).time_ns(1000), 29'000 + 19'373);
  EXPECT_EQ(AllToAllCost(kH100, 8, 7168).time_ns(0), 29'000);
}

TEST(AllToAllCost, SeveralNodesUseTheNetwork) {
  // 24/32 of the tokens cross nodes at 50 GB/s; 7/32 stay in the node and take less time
  EXPECT_EQ(AllToAllCost(kH100, 32, 7168).time_ns(1000), 47'000 + 107'520);
  // 9 devices: 8/9 in the node... of which 7/9 over its links beat 1/9 over the network
  EXPECT_EQ(AllToAllCost(kH100, 9, 7168).time_ns(1000), 47'000 + 30'136);
}

TEST(AllToAllCost, CombineCarriesTwiceTheBytes) {
  const AllToAllCost dispatch(kH100, 64, dispatch_bytes_per_token(4096));
  const AllToAllCost combine(kH100, 64, combine_bytes_per_token(4096));
  EXPECT_NEAR(static_cast<double>(combine.time_ns(4096) - 47'000),
              2.0 * static_cast<double>(dispatch.time_ns(4096) - 47'000), 2.0);
}

TEST(AllToAllCost, RisesWithTokens) {
  const AllToAllCost cost(kH100, 16, 7168);
  for (std::int64_t tokens = 0; tokens < 1000; ++tokens) {
    EXPECT_LT(cost.time_ns(tokens), cost.time_ns(tokens + 1));
  }
}

TEST(PointToPoint, NetworkOrNodeLinks) {
  EXPECT_DOUBLE_EQ(point_to_point_ns(kH100, 1850, false), 10.0);
  EXPECT_DOUBLE_EQ(point_to_point_ns(kH100, 1850, true), 37.0);
}

}  // namespace
}  // namespace moevar::exchange
