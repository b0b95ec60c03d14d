#include "run/slot_routing.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "run/slot_tokens.hpp"

namespace moevar::run {
namespace {

/// Two devices of three slots: expert 1 twice (0.75 and 0.25), the others once.
placement::Placement replicated() {
  placement::Placement placement;
  placement.devices = 2;
  placement.slots_per_device = 3;
  placement.expert_of_slot = Matrix<std::int32_t>({1, 6});
  placement.share_of_slot = Matrix<double>({1, 6}, 1.0);
  const std::vector<std::int32_t> experts{0, 1, 2, 3, 1, 4};
  std::ranges::copy(experts, placement.expert_of_slot.flat().begin());
  placement.share_of_slot(0, 1) = 0.75;
  placement.share_of_slot(0, 4) = 0.25;
  return placement;
}

TEST(SlotRouting, OneSlotTakesAllTokensOfItsExpert) {
  std::vector<std::int32_t> slots(5);
  choose_slots(replicated(), 0, std::vector<std::int32_t>{4, 0, 3, 2, 4}, slots);
  EXPECT_EQ(slots, (std::vector<std::int32_t>{5, 0, 3, 2, 5}));
}

TEST(SlotRouting, ReplicasAreDealtTheirShareAllAlong) {
  const std::vector<std::int32_t> experts(8, 1);
  std::vector<std::int32_t> slots(8);
  choose_slots(replicated(), 0, experts, slots);
  EXPECT_EQ(slots, (std::vector<std::int32_t>{1, 1, 4, 1, 1, 1, 4, 1}));
}

TEST(SlotRouting, CountsAreThoseOfSlotTokens) {
  const auto placement = replicated();
  for (std::uint32_t tokens = 0; tokens < 30; ++tokens) {
    const std::vector<std::int32_t> experts(tokens, 1);
    std::vector<std::int32_t> slots(tokens);
    choose_slots(placement, 0, experts, slots);
    std::vector<std::uint32_t> counted(6, 0);
    for (const auto slot : slots) {
      ++counted[static_cast<std::size_t>(slot)];
    }
    std::vector<std::uint32_t> expected(6);
    SlotTokens(placement, {0, 2})
        .count(0, std::vector<std::uint32_t>{0, tokens, 0, 0, 0}, expected);
    EXPECT_EQ(counted, expected) << tokens;
  }
}

TEST(SlotRouting, AShareOfNothingGetsNothing) {
  auto placement = replicated();
  placement.share_of_slot(0, 1) = 0.0;
  placement.share_of_slot(0, 4) = 1.0;
  std::vector<std::int32_t> slots(5);
  choose_slots(placement, 0, std::vector<std::int32_t>{1, 1, 0, 1, 1}, slots);
  EXPECT_EQ(slots, (std::vector<std::int32_t>{4, 4, 0, 4, 4}));
}

}  // namespace
}  // namespace moevar::run
