#include "placement/placement.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "cases.hpp"
#include "placement/migration.hpp"

namespace moevar::placement {
namespace {

double slowest(const Placement& p, int layer, const Problem& problem) {
  const auto tokens = device_tokens(p, layer, problem.mean_loads.row(layer));
  double time = 0;
  for (std::size_t d = 0; d < tokens.size(); ++d) {
    time = std::max(time, problem.speeds[d].time_us(tokens[d]));
  }
  return time;
}

/// The two layers of the example in deepseek-ai/EPLB's README.
Matrix<double> deepseeks_example() {
  Matrix<double> loads({2, 12});
  const std::vector<double> values{90, 132, 40,  61, 104, 165, 39,  4,   73,  56, 183, 86,
                                   20, 107, 104, 64, 19,  197, 187, 157, 172, 86, 16,  27};
  std::ranges::copy(values, loads.flat().begin());
  return loads;
}

TEST(Eplb, GivesWhatDeepSeeksAlgorithmGives) {
  const auto loads = deepseeks_example();
  const auto speeds = equal_speeds(4);
  const auto p = solve(find_policy("eplb"), {loads, speeds, 4, 3, 0});
  EXPECT_EQ(row(p, 0), (Slots{10, 3, 7, 5, 8, 6, 1, 11, 2, 4, 0, 9}));
  EXPECT_EQ(row(p, 1), (Slots{5, 3, 11, 6, 9, 4, 8, 2, 10, 7, 1, 0}));
}

TEST(Eplb, GivesWhatDeepSeeksAlgorithmGivesWithReplicasAndWithGroupsOnNodes) {
  const auto loads = deepseeks_example();
  const auto speeds = equal_speeds(8);
  Problem problem{loads, speeds, 8, 2, 0};
  auto p = solve(find_policy("eplb"), problem);
  EXPECT_EQ(row(p, 0), (Slots{10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1}));
  EXPECT_EQ(row(p, 1), (Slots{1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7}));
  const auto global = p.expert_of_slot;

  problem.groups = 4;
  problem.nodes = 2;
  p = solve(find_policy("eplb"), problem);
  EXPECT_EQ(row(p, 0), (Slots{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}));
  EXPECT_EQ(row(p, 1), (Slots{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}));
  // each group of three experts stays on one node, that is on one half of the slots
  for (int slot = 0; slot < 16; ++slot) {
    for (int other = 0; other < 16; ++other) {
      if (p.expert_of_slot(0, slot) / 3 == p.expert_of_slot(0, other) / 3) {
        EXPECT_EQ(slot / 8, other / 8);
      }
    }
  }

  problem.groups = 3;  // do not divide over two nodes: global
  EXPECT_EQ(solve(find_policy("eplb"), problem).expert_of_slot, global);
}

TEST(Eplb, KeepsTwoCopiesOnADeviceAsPublishedAndSplitsTheirTokens) {
  const auto loads = deepseeks_example();
  const auto speeds = equal_speeds(8);
  const auto p = solve(find_policy("eplb"), {loads, speeds, 8, 2, 0});
  EXPECT_EQ(p.expert_of_slot(0, 14), 1);
  EXPECT_EQ(p.expert_of_slot(0, 15), 1);
  EXPECT_EQ(p.share_of_slot(0, 14), 0.5);
  EXPECT_EQ(device_tokens(p, 0, loads.row(0))[7], 132);
}

TEST(Eplb, SplitsTiesAsPublished) {
  const Matrix<double> loads({1, 8}, 5.0);
  const auto speeds = equal_speeds(4);
  EXPECT_EQ(row(solve(find_policy("eplb"), {loads, speeds, 4, 2, 0}), 0),
            (Slots{0, 4, 1, 5, 2, 6, 3, 7}));
  // four more copies: of experts 0 to 3; the whole loads come first, then the halves
  EXPECT_EQ(row(solve(find_policy("eplb"), {loads, speeds, 4, 3, 0}), 0),
            (Slots{4, 0, 0, 5, 1, 1, 6, 2, 2, 7, 3, 3}));
}

TEST(Eplb, LeavesExpertsWhereTheyAreWithOneSlotADevice) {
  const auto loads = random_loads(2, 8, 3);
  const auto speeds = equal_speeds(8);
  EXPECT_EQ(solve(find_policy("eplb"), {loads, speeds, 8, 1, 0}).expert_of_slot,
            solve(find_policy("contiguous"), {loads, speeds, 8, 1, 0}).expert_of_slot);
}

TEST(Contiguous, AndRoundRobinAreWhatTheirNamesSay) {
  const auto loads = random_loads(1, 6, 1);
  const auto speeds = equal_speeds(3);
  EXPECT_EQ(row(solve(find_policy("contiguous"), {loads, speeds, 3, 2, 0}), 0),
            (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(row(solve(find_policy("round_robin"), {loads, speeds, 3, 2, 0}), 0),
            (std::vector<std::int32_t>{0, 3, 1, 4, 2, 5}));
}

TEST(Random, DependsOnSeedAndLayer) {
  const auto loads = random_loads(2, 64, 1);
  const auto speeds = equal_speeds(8);
  const auto a = solve(find_policy("random"), {loads, speeds, 8, 8, 1});
  EXPECT_EQ(a.expert_of_slot,
            solve(find_policy("random"), {loads, speeds, 8, 8, 1}).expert_of_slot);
  EXPECT_NE(a.expert_of_slot,
            solve(find_policy("random"), {loads, speeds, 8, 8, 2}).expert_of_slot);
  EXPECT_NE(row(a, 0), row(a, 1));
}

TEST(Vibe, WithEqualSpeedsIsEplb) {
  const auto loads = random_loads(8, 64, 5);
  const auto speeds = equal_speeds(8);
  EXPECT_EQ(solve(find_policy("vibe"), {loads, speeds, 8, 8, 0}).expert_of_slot,
            solve(find_policy("eplb"), {loads, speeds, 8, 8, 0}).expert_of_slot);
}

TEST(Vibe, GivesASlowDeviceFewerTokens) {
  const auto loads = random_loads(8, 64, 6);
  auto speeds = equal_speeds(8);
  speeds[3] = proportional(2.0);
  const Problem problem{loads, speeds, 8, 8, 0};
  const auto p = solve(find_policy("vibe"), problem);
  const auto even = solve(find_policy("eplb"), problem);
  double won = 0;
  for (int layer = 0; layer < 8; ++layer) {
    const auto tokens = device_tokens(p, layer, loads.row(layer));
    EXPECT_EQ(std::ranges::min_element(tokens) - tokens.begin(), 3);
    won += slowest(even, layer, problem) - slowest(p, layer, problem);
  }
  EXPECT_GT(won, 0);
}

TEST(Vibe, ScalingAllSpeedsChangesNothing) {
  const auto loads = random_loads(4, 32, 7);
  SpeedModels slow;
  SpeedModels fast;
  for (int d = 0; d < 4; ++d) {
    slow.push_back(proportional(4.0 + d));
    fast.push_back(proportional(1.0 + d / 4.0));
  }
  EXPECT_EQ(solve(find_policy("vibe"), {loads, slow, 4, 8, 0}).expert_of_slot,
            solve(find_policy("vibe"), {loads, fast, 4, 8, 0}).expert_of_slot);
}

TEST(LowerBound, NoRandomPlacementBeatsItAndAnEvenSplitMeetsIt) {
  const auto loads = random_loads(1, 32, 9);
  SpeedModels speeds;
  for (int d = 0; d < 4; ++d) {
    speeds.push_back(SpeedCurve({10, 1000}, {3, 30.0 + d}));
  }
  const double bound = lower_bound_us(loads.row(0), speeds, 8);
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    EXPECT_GE(solve(find_policy("random"), {loads, speeds, 4, 8, seed}).predicted_us[0], bound);
  }
  Matrix<double> even({1, 32}, 10.0);
  const auto equal = equal_speeds(4);
  EXPECT_NEAR(lower_bound_us(even.row(0), equal, 8), 80.0, 1e-6);
  Matrix<double> hot({1, 32}, 0.0);
  hot(0, 3) = 50.0;
  EXPECT_NEAR(lower_bound_us(hot.row(0), equal, 8), 50.0, 1e-6);
}

TEST(Moves, AreTheExpertsThatChangeDevice) {
  const auto loads = random_loads(2, 6, 1);
  const auto speeds = equal_speeds(3);
  const auto from = solve(find_policy("contiguous"), {loads, speeds, 3, 2, 0});
  const auto to = solve(find_policy("round_robin"), {loads, speeds, 3, 2, 0});
  EXPECT_TRUE(moves_between(from, from).empty());
  const auto moves = moves_between(from, to);
  // 0 1 | 2 3 | 4 5 becomes 0 3 | 1 4 | 2 5 in both layers
  ASSERT_EQ(moves.size(), 8U);
  EXPECT_EQ(moves[0].expert, 3);
  EXPECT_EQ(moves[0].from_device, 1);
  EXPECT_EQ(moves[0].to_device, 0);
  EXPECT_EQ(moves[0].to_slot, 1);
  EXPECT_EQ(moves[4].layer, 1);
}

TEST(Moves, AnExpertInTwoSlotsOfADeviceMovesOnce) {
  const auto placed = [](const std::vector<std::int32_t>& experts) {
    Placement p;
    p.devices = 2;
    p.slots_per_device = 3;
    p.expert_of_slot = Matrix<std::int32_t>({1, 6});
    std::ranges::copy(experts, p.expert_of_slot.flat().begin());
    return p;
  };
  const auto from = placed({0, 1, 2, 3, 1, 2});
  const auto to = placed({3, 0, 3, 1, 2, 0});
  const auto moves = moves_between(from, to);
  ASSERT_EQ(moves.size(), 2U);
  EXPECT_EQ(moves[0].expert, 3);
  EXPECT_EQ(moves[0].to_slot, 0);
  EXPECT_EQ(moves[1].expert, 0);
  EXPECT_EQ(moves[1].to_slot, 5);
  EXPECT_EQ(plan_migration(from, to).size(), moves.size());
}

TEST(Eplb, AZerosSignIsNoLoad) {
  const auto speeds = equal_speeds(2);
  for (const char* policy : {"eplb", "eplb_steps"}) {
    const auto with = one_layer({-0.0, 5.0, 3.0, -0.0});
    const auto without = one_layer({0.0, 5.0, 3.0, 0.0});
    const auto p = solve(find_policy(policy), {with, speeds, 2, 3, 0});
    EXPECT_EQ(p.expert_of_slot,
              solve(find_policy(policy), {without, speeds, 2, 3, 0}).expert_of_slot)
        << policy;
    EXPECT_EQ(std::ranges::count(row(p, 0), 1), 2) << policy << ": the heaviest is copied";
    EXPECT_EQ(std::ranges::count(row(p, 0), 2), 2) << policy << ": then the next";
  }
}

TEST(Solve, RefusesWhatDoesNotFit) {
  const auto loads = random_loads(1, 32, 1);
  const auto speeds = equal_speeds(4);
  const auto& eplb = find_policy("eplb");
  EXPECT_THROW((void)solve(eplb, {loads, speeds, 4, 7, 0}), InputError);
  EXPECT_THROW((void)solve(eplb, {loads, speeds, 2, 16, 0}), InputError);
  EXPECT_THROW((void)solve(eplb, {loads, speeds, 0, 8, 0}), InputError);
  auto bad = loads;
  bad(0, 3) = std::nan("");
  EXPECT_THROW((void)solve(eplb, {bad, speeds, 4, 8, 0}), InputError);
  try {
    (void)find_policy("elpb");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("nearest is eplb"), std::string::npos);
  }
}

}  // namespace
}  // namespace moevar::placement
