#include "placement/migration.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"

namespace moevar::placement {
namespace {

Placement placed(int devices, const std::vector<std::vector<std::int32_t>>& layers) {
  Placement placement;
  placement.devices = devices;
  placement.slots_per_device = static_cast<int>(layers.front().size()) / devices;
  placement.expert_of_slot = Matrix<std::int32_t>({layers.size(), layers.front().size()});
  placement.share_of_slot = Matrix<double>(placement.expert_of_slot.shape(), 1.0);
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    std::ranges::copy(layers[layer], placement.expert_of_slot.row(layer).begin());
  }
  return placement;
}

/// Every expert once, further slots any expert (also two of one on a device), in random order.
Placement drawn(const RandomKey& key, int devices, int slots_per_device, int experts) {
  std::vector<std::int32_t> slots(static_cast<std::size_t>(devices) *
                                  static_cast<std::size_t>(slots_per_device));
  std::iota(slots.begin(), slots.begin() + experts, 0);
  for (std::size_t s = static_cast<std::size_t>(experts); s < slots.size(); ++s) {
    slots[s] = static_cast<std::int32_t>(key[0][s].below(static_cast<std::uint64_t>(experts)));
  }
  for (std::size_t i = slots.size(); i > 1; --i) {
    std::swap(slots[i - 1], slots[key[1][i].below(i)]);
  }
  return placed(devices, {slots});
}

bool distinct_on_devices(const Placement& placement) {
  for (int d = 0; d < placement.devices; ++d) {
    const auto width = static_cast<std::size_t>(placement.slots_per_device);
    const auto slots =
        placement.expert_of_slot.row(0).subspan(static_cast<std::size_t>(d) * width, width);
    std::vector<std::int32_t> sorted(slots.begin(), slots.end());
    std::ranges::sort(sorted);
    if (std::ranges::adjacent_find(sorted) != sorted.end()) {
      return false;
    }
  }
  return true;
}

TEST(Migration, ThousandsOfRandomPairsKeepToOneSpareSlot) {
  int checked = 0;
  int with_replicas = 0;
  std::size_t sends = 0;
  for (std::uint64_t i = 0; i < 6000; ++i) {
    const auto key = RandomKey(17)[i];
    const int devices = 1 + static_cast<int>(key[0].below(9));
    const int slots = 1 + static_cast<int>(key[1].below(6));
    const int all = devices * slots;
    const int experts = key[2].below(2) == 0
                            ? all
                            : 1 + static_cast<int>(key[3].below(static_cast<std::uint64_t>(all)));
    const auto from = drawn(key[4], devices, slots, experts);
    const auto to = drawn(key[5], devices, slots, experts);
    const auto plan = plan_migration(from, to);
    ASSERT_NO_THROW(check_migration(from, to, plan)) << i;
    const auto moves = moves_between(from, to);
    if (distinct_on_devices(to)) {
      ASSERT_EQ(plan.size(), moves.size()) << "a device that misses an expert gets it once";
    } else {
      ASSERT_LE(plan.size(), moves.size());
    }
    with_replicas += experts < all ? 1 : 0;
    sends += plan.size();
    ++checked;
  }
  EXPECT_EQ(checked, 6000);
  EXPECT_GT(with_replicas, 2000);
  EXPECT_GT(sends, 30'000U);
}

TEST(Migration, ACycleOverAllDevicesNeedsOneSpareSlotInAll) {
  const auto from = placed(4, {{0, 1, 2, 3}, {0, 1, 2, 3}});
  const auto to = placed(4, {{3, 0, 1, 2}, {1, 0, 2, 3}});
  const auto plan = plan_migration(from, to);
  check_migration(from, to, plan);
  ASSERT_EQ(plan.size(), 6U);
  // device 0 takes 3 beside its own 0, which then has to go home to 1, and so on round
  EXPECT_EQ(plan[0].expert, 3);
  EXPECT_EQ(plan[0].to_device, 0);
  EXPECT_FALSE(plan[0].leaves) << "until the cycle closes, device 3 keeps its copy";
  EXPECT_EQ(plan[0].replaced, -1);
  EXPECT_EQ(plan[1].expert, 0);
  EXPECT_TRUE(plan[1].leaves);
  EXPECT_EQ(plan[3].to_device, 3);
  EXPECT_EQ(plan[3].replaced, 3) << "the cycle closes";
  EXPECT_EQ(plan[4].layer, 1);
}

TEST(Migration, OtherSlotsOfADeviceCostNothing) {
  const auto from = placed(2, {{0, 1, 2, 3, 4, 5}});
  EXPECT_TRUE(plan_migration(from, placed(2, {{2, 0, 1, 5, 4, 3}})).empty());
  EXPECT_TRUE(plan_migration(placed(2, {{0, 1, 2, 3}}), placed(2, {{1, 0, 3, 2}})).empty());
  // a second copy beside the first is made on the device
  EXPECT_TRUE(plan_migration(placed(2, {{0, 1, 0, 2}}), placed(2, {{1, 1, 0, 2}})).empty());
}

TEST(Migration, SourcesTakeTurns) {
  // expert 0 on devices 0 and 1 goes to devices 2 and 3 as well
  const auto from = placed(4, {{0, 1, 0, 2, 3, 4, 5, 6}});
  const auto to = placed(4, {{0, 1, 0, 2, 0, 4, 0, 6}});
  const auto plan = plan_migration(from, to);
  ASSERT_EQ(plan.size(), 2U);
  EXPECT_EQ(plan[0].from_device, 0);
  EXPECT_EQ(plan[1].from_device, 1);
}

TEST(Migration, TheCheckFindsWhatIsWrong) {
  const auto from = placed(3, {{0, 1, 2, 3, 4, 5}});
  const auto to = placed(3, {{0, 2, 4, 3, 1, 5}});
  const auto plan = plan_migration(from, to);
  check_migration(from, to, plan);
  ASSERT_EQ(plan.size(), 3U);
  const auto refused = [&](std::vector<Send> wrong, const char* why) {
    try {
      check_migration(from, to, wrong);
      ADD_FAILURE() << why;
    } catch (const CheckError& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  auto wrong = plan;
  wrong.pop_back();
  refused(wrong, "does not hold what it should");
  wrong = plan;
  wrong[0].from_device = wrong[0].to_device;
  refused(wrong, "the source does not hold");
  wrong = plan;
  wrong.back().replaced = -1;
  refused(wrong, "does not hold what it should");
  wrong = {{0, 2, 1, 0}, {0, 3, 1, 0}};
  refused(wrong, "no spare slot");
  wrong = {{0, 2, 1, 0, false, 5}};
  refused(wrong, "does not hold what it gives up");
}

TEST(Migration, WhatDoesNotFitIsRefused) {
  const auto from = placed(2, {{0, 1, 2, 3}});
  EXPECT_THROW((void)plan_migration(from, placed(4, {{0, 1, 2, 3}})), InputError);
  EXPECT_THROW((void)plan_migration(from, placed(2, {{0, 1, 2, 3}, {0, 1, 2, 3}})), InputError);
  EXPECT_THROW((void)plan_migration(from, placed(2, {{0, 1, 2, 4}})), InputError);
}

}  // namespace
}  // namespace moevar::placement
