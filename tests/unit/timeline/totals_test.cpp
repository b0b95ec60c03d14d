#include <limits>

#include <gtest/gtest.h>

#include "timeline/timeline.hpp"

namespace moevar::timeline {
namespace {

TEST(TotalsOf, TwoDevices) {
  Timeline part(2, 1, 2);
  const auto set = [&](std::size_t d, std::size_t layer, std::uint32_t tokens, Nanoseconds dispatch,
                       Nanoseconds expert, Nanoseconds wait) {
    part.tokens(d, 0, layer) = tokens;
    part.dispatch_ns(d, 0, layer) = dispatch;
    part.expert_ns(d, 0, layer) = expert;
    part.wait_ns(d, 0, layer) = wait;
    part.combine_ns(d, 0, layer) = 7;
  };
  set(0, 0, 5, 10, 100, 0);
  set(1, 0, 3, 20, 60, 30);
  set(0, 1, 4, 10, 80, 15);
  set(1, 1, 4, 10, 95, 0);
  const auto totals = totals_of(part);
  EXPECT_EQ(totals.devices, 2);
  EXPECT_EQ(totals.layer_ns(0, 0), 117);
  EXPECT_EQ(totals.layer_ns(0, 1), 112);
  EXPECT_EQ(totals.busy_sum_ns(0, 0), 204);
  EXPECT_EQ(totals.wait_sum_ns(0, 0), 30);
  EXPECT_EQ(totals.expert_max_ns(0, 0), 100);
  EXPECT_EQ(totals.expert_min_ns(0, 0), 60);
  EXPECT_EQ(totals.tokens_max(0, 0), 5);
  EXPECT_EQ(totals.tokens_sum(0, 0), 8);
  EXPECT_EQ(totals.expert_max_ns(0, 1), 95);
  EXPECT_EQ(totals.expert_min_ns(0, 1), 80);
}

TEST(TotalsByDevice, OverStepsAndLayers) {
  Timeline part(2, 2, 2);
  std::int64_t i = 1;
  for (std::size_t d = 0; d < 2; ++d) {
    for (std::size_t step = 0; step < 2; ++step) {
      for (std::size_t layer = 0; layer < 2; ++layer, ++i) {
        part.tokens(d, step, layer) = static_cast<std::uint32_t>(i);
        part.dispatch_ns(d, step, layer) = 10 * i;
        part.expert_ns(d, step, layer) = 100 * i;
        part.combine_ns(d, step, layer) = 1000;
        part.wait_ns(d, step, layer) = d == 0 ? i - 1 : 5;
      }
    }
  }
  const auto totals = totals_by_device(part);
  EXPECT_EQ(totals.tokens_sum, (std::vector<std::int64_t>{10, 26}));
  EXPECT_EQ(totals.expert_sum_ns, (std::vector<std::int64_t>{1000, 2600}));
  EXPECT_EQ(totals.busy_sum_ns, (std::vector<std::int64_t>{5100, 6860}));
  EXPECT_EQ(totals.wait_sum_ns, (std::vector<std::int64_t>{6, 20}));
  EXPECT_EQ(totals.last_calls, (std::vector<std::int64_t>{1, 0}));
  EXPECT_TRUE(totals_by_device(Timeline(0, 2, 2)).wait_sum_ns.empty());
}

TEST(TotalsOf, NoDevicesAreNeutral) {
  const auto totals = totals_of(Timeline(0, 2, 3));
  EXPECT_EQ(totals.devices, 0);
  EXPECT_EQ(totals.layer_ns, Matrix<Nanoseconds>({2, 3}, 0));
  EXPECT_EQ(totals.expert_min_ns,
            Matrix<Nanoseconds>({2, 3}, std::numeric_limits<Nanoseconds>::max()));
}

}  // namespace
}  // namespace moevar::timeline
