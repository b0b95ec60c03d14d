#include "run/slot_tokens.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "run/expert_cost.hpp"

namespace moevar::run {
namespace {

using Tokens = std::vector<std::uint32_t>;

Tokens split(std::uint32_t total, const std::vector<double>& shares) {
  Tokens parts(shares.size());
  split_by_share(total, shares, parts);
  return parts;
}

TEST(SplitByShare, LargestRemainder) {
  EXPECT_EQ(split(10, {0.5, 0.5}), (Tokens{5, 5}));
  EXPECT_EQ(split(11, {0.5, 0.5}), (Tokens{6, 5})) << "ties go to the lower slot";
  EXPECT_EQ(split(10, {0.25, 0.75}), (Tokens{3, 7})) << "2.5 and 7.5";
  EXPECT_EQ(split(10, {0.24, 0.76}), (Tokens{2, 8}));
  EXPECT_EQ(split(0, {0.3, 0.7}), (Tokens{0, 0}));
  EXPECT_EQ(split(1, {0.3, 0.3, 0.4}), (Tokens{0, 0, 1}));
  EXPECT_EQ(split(7, {1.0}), (Tokens{7}));
}

TEST(SplitByShare, NothingForAShareOfNothing) {
  EXPECT_EQ(split(7, {0.0, 1.0}), (Tokens{0, 7}));
  EXPECT_EQ(split(7, {1.0, 0.0}), (Tokens{7, 0}));
  EXPECT_EQ(split(7, {0.0, 0.5, 0.0, 0.5}), (Tokens{0, 4, 0, 3}));
  // shares that sum to 1 but for their last bits leave several tokens over
  const double bit_less = (1.0 - 1e-9) / 3;
  const auto parts = split(4'000'000'000U, {0.0, bit_less, bit_less, bit_less, 0.0});
  EXPECT_EQ(parts[0] + parts[4], 0U);
  EXPECT_EQ(std::accumulate(parts.begin(), parts.end(), 0U), 4'000'000'000U);
}

TEST(SplitByShare, SumsExactly) {
  const std::vector<double> thirds{1.0 / 3, 1.0 / 3, 1.0 / 3};
  const std::vector<double> sevenths(7, 1.0 / 7);
  for (std::uint32_t total = 0; total < 3000; ++total) {
    for (const auto& shares : {thirds, sevenths, std::vector<double>{0.1, 0.2, 0.7}}) {
      const auto parts = split(total, shares);
      ASSERT_EQ(std::accumulate(parts.begin(), parts.end(), 0U), total);
    }
  }
  const auto large = split(4'000'000'000U, sevenths);
  EXPECT_EQ(std::accumulate(large.begin(), large.end(), 0U), 4'000'000'000U);
}

/// 2 devices of 3 slots for 4 experts: expert 0 has three slots, the second layer no replicas of
/// experts with other shares than 1 except expert 3.
placement::Placement two_layers() {
  placement::Placement placement;
  placement.devices = 2;
  placement.slots_per_device = 3;
  placement.expert_of_slot = Matrix<std::int32_t>({2, 6});
  placement.share_of_slot = Matrix<double>({2, 6}, 1.0);
  const std::vector<std::int32_t> experts{0, 1, 0, 2, 3, 0, 3, 2, 1, 0, 3, 3};
  std::copy(experts.begin(), experts.end(), placement.expert_of_slot.flat().begin());
  placement.share_of_slot(0, 0) = 0.5;
  placement.share_of_slot(0, 2) = 0.25;
  placement.share_of_slot(0, 5) = 0.25;
  placement.share_of_slot(1, 0) = 0.2;
  placement.share_of_slot(1, 4) = 0.8;
  placement.share_of_slot(1, 5) = 0.0;
  return placement;
}

TEST(SlotTokens, WholeFleetAndItsParts) {
  const auto placement = two_layers();
  const Tokens loads{10, 20, 30, 41};
  const std::vector<Tokens> expected{{5, 20, 3, 30, 41, 2}, {8, 30, 20, 10, 33, 0}};
  for (std::size_t layer = 0; layer < 2; ++layer) {
    Tokens all(6);
    SlotTokens(placement, {0, 2}).count(layer, loads, all);
    EXPECT_EQ(all, expected[layer]) << "layer " << layer;
    for (DeviceId device = 0; device < 2; ++device) {
      Tokens part(3);
      SlotTokens(placement, {device, device + 1}).count(layer, loads, part);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + std::ptrdiff_t{3} * device))
          << "layer " << layer << ", device " << device;
    }
  }
}

TEST(SlotTokens, AReplicaMayTakeEverything) {
  auto placement = two_layers();
  const std::vector<double> shares{1.0, 1.0, 0.0, 1.0, 1.0, 0.0};
  std::ranges::copy(shares, placement.share_of_slot.row(0).begin());
  const Tokens loads{10, 20, 30, 41};
  Tokens all(6);
  SlotTokens(placement, {0, 2}).count(0, loads, all);
  EXPECT_EQ(all, (Tokens{10, 20, 0, 30, 41, 0}));
  for (const DeviceId device : {0, 1}) {
    Tokens part(3);
    SlotTokens(placement, {device, device + 1}).count(0, loads, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + std::ptrdiff_t{3} * device));
  }
}

TEST(SlotWork, PadsEverySlotToTiles) {
  const auto work = [](Tokens tokens) { return SlotWork::of(tokens); };
  EXPECT_EQ(work({0}).tiles, 0U);
  EXPECT_EQ(work({1}).tiles, 1U);
  EXPECT_EQ(work({64}).tiles, 1U);
  EXPECT_EQ(work({65}).tiles, 2U) << "beyond a small tile come full ones of 128 rows";
  EXPECT_EQ(work({128}).tiles, 2U);
  EXPECT_EQ(work({129}).tiles, 4U);
  const auto several = work({0, 1, 127, 128, 300});
  EXPECT_EQ(several.tiles, 0U + 1U + 2U + 2U + 6U);
  EXPECT_EQ(several.active, 4U);
  EXPECT_EQ(several.tokens, 556U);
}

TEST(ExpertCost, ArithmeticInTilesAndAMemoryFloor) {
  const auto& family = fleet::find_family("h100-sxm5");
  const fleet::GpuTraits gpu{.t_in_c = family.t_in_c};
  const study::ModelShape model{"", 7168, 2048, 256, 8, 58};
  const ExpertCost cost(family, gpu, model, 1500.0);
  const auto time = [&](Tokens tokens) { return cost.time_ns(SlotWork::of(tokens)); };
  // 6 * 7168 * 2048 * 64 FLOP at 1500 MHz * 505,528 FLOP
  EXPECT_NEAR(cost.tile_ns, 14'867 / 2.0, 1);
  // 88.08 MB at 3082 GB/s
  EXPECT_NEAR(cost.weights_ns, 28'579, 1);
  EXPECT_EQ(time({0, 0}), 0.0);
  EXPECT_EQ(time({1025}), time({1152})) << "the same tiles";
  EXPECT_GT(time({1153}), time({1152}));
  EXPECT_DOUBLE_EQ(time({1024, 1024}), 2 * time({1024}));
  EXPECT_DOUBLE_EQ(time({1}), cost.weights_ns + cost.token_ns) << "weights must be read";
  EXPECT_EQ(time({1}), ExpertCost(family, gpu, model, 1000.0).time_ns(SlotWork::of(Tokens{1})))
      << "memory does not know the SM clock";
  EXPECT_NEAR(
      time({4096}) / ExpertCost(family, gpu, model, 750.0).time_ns(SlotWork::of(Tokens{4096})), 0.5,
      1e-12);
  // 300 W leave 580 MHz: a full tile takes longer than the weights, the small one of few tokens
  // does not
  EXPECT_EQ(time({64}), ExpertCost(family, gpu, model, 500.0).time_ns(SlotWork::of(Tokens{64})));
  EXPECT_EQ(expert_bytes(model), 88'080'384);
}

}  // namespace
}  // namespace moevar::run
