#include "run/lane_route.hpp"

#include <algorithm>
#include <array>
#include <functional>
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

TEST(PartOfEach, TakesTheSameTokensOfEveryDevice) {
  EXPECT_EQ(part_of_each(kSlots, 4, 0, 2), (std::vector<std::int32_t>{0, 1, 3, 0}));
  EXPECT_EQ(part_of_each(kSlots, 4, 2, 2), (std::vector<std::int32_t>{0, 2, 2, 1}));
  EXPECT_TRUE(std::ranges::equal(part_of_each(kSlots, 4, 0, 4), kSlots));
  EXPECT_TRUE(part_of_each(kSlots, 4, 4, 0).empty());
}

TEST(PartOfEach, RoutesOfBatchesAddUp) {
  for (const DeviceId device : {0, 1}) {
    const auto whole = lane_route(kExperts, kSlots, kShape, device);
    LaneRoute sum = lane_route(part_of_each(kExperts, 4, 0, 2), part_of_each(kSlots, 4, 0, 2),
                               {2, 2, 2}, device);
    const auto second = lane_route(part_of_each(kExperts, 4, 2, 2), part_of_each(kSlots, 4, 2, 2),
                                   {2, 2, 2}, device);
    EXPECT_EQ(sum.received + second.received, whole.received);
    const auto add = [](auto& to, const auto& from) {
      std::ranges::transform(to, from, to.begin(), std::plus());
    };
    auto to = sum.rows_to.flat();
    auto from = sum.rows_from.flat();
    add(to, second.rows_to.flat());
    add(from, second.rows_from.flat());
    add(sum.rows_per_slot, second.rows_per_slot);
    EXPECT_TRUE(std::ranges::equal(to, whole.rows_to.flat()));
    EXPECT_TRUE(std::ranges::equal(from, whole.rows_from.flat()));
    EXPECT_EQ(sum.rows_per_slot, whole.rows_per_slot);
  }
}

}  // namespace
}  // namespace moevar::run
