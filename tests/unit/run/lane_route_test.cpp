#include "run/lane_route.hpp"

#include <array>
#include <numeric>

#include <gtest/gtest.h>

namespace moevar::run {
namespace {

// two devices of two slots, two tokens each, top 2
constexpr std::array<std::int32_t, 8> kExperts{5, 6, 5, 7, 8, 5, 7, 6};
constexpr std::array<std::int32_t, 8> kSlots{0, 1, 0, 2, 3, 0, 2, 1};
constexpr RouteShape kShape{2, 2, 4};

TEST(LaneRoute, KnowsItsOwnTokensAndWhatComes) {
  const auto first = lane_route(kExperts, kSlots, kShape, 0);
  EXPECT_EQ(first.experts, (std::vector<std::int32_t>{5, 6, 5, 7}));
  EXPECT_EQ(first.slots, (std::vector<std::int32_t>{0, 1, 0, 2}));
  EXPECT_TRUE(std::ranges::equal(first.rows_to.flat(), std::array{2, 1, 1, 0}));
  EXPECT_TRUE(std::ranges::equal(first.rows_from.flat(), std::array{2, 1, 1, 1}));
  EXPECT_EQ(first.rows_per_slot, (std::vector<std::int64_t>{3, 2}));
  EXPECT_EQ(first.received, 5);

  const auto second = lane_route(kExperts, kSlots, kShape, 1);
  EXPECT_TRUE(std::ranges::equal(second.rows_to.flat(), std::array{1, 1, 1, 1}));
  EXPECT_TRUE(std::ranges::equal(second.rows_from.flat(), std::array{1, 0, 1, 1}));
  EXPECT_EQ(second.received, 3);
}

TEST(LaneRoute, WhatIsSentComes) {
  const std::array routes{lane_route(kExperts, kSlots, kShape, 0),
                          lane_route(kExperts, kSlots, kShape, 1)};
  for (std::size_t from = 0; from < 2; ++from) {
    for (std::size_t to = 0; to < 2; ++to) {
      for (std::size_t slot = 0; slot < 2; ++slot) {
        EXPECT_EQ(routes[from].rows_to(to, slot), routes[to].rows_from(from, slot));
      }
    }
  }
}

}  // namespace
}  // namespace moevar::run
