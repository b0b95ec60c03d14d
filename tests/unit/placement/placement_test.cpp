#include "placement/placement.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"

namespace moevar::placement {
namespace {

SpeedCurve proportional(double us_per_token) { return SpeedCurve({1.0}, {us_per_token}); }

SpeedModels equal_speeds(int devices) {
  return SpeedModels(static_cast<std::size_t>(devices), proportional(1.0));
}

Matrix<double> random_loads(std::size_t layers, std::size_t experts, std::uint64_t seed) {
  Matrix<double> loads({layers, experts});
  for (std::size_t i = 0; i < loads.size(); ++i) {
    loads.flat()[i] = std::exp(2.0 * RandomKey(seed)[i].normal()) * 100.0;
  }
  return loads;
}

std::vector<std::int32_t> row(const Placement& p, int layer) {
  const auto slots = p.expert_of_slot.row(layer);
  return {slots.begin(), slots.end()};
}

double slowest(const Placement& p, int layer, const Problem& problem) {
  const auto tokens = device_tokens(p, layer, problem.mean_loads.row(layer));
  double time = 0;
  for (std::size_t d = 0; d < tokens.size(); ++d) {
    time = std::max(time, problem.speeds[d].time_us(tokens[d]));
  }
  return time;
}

// The example of deepseek-ai/EPLB's README with 12 replicas, hence no redundancy, on 4 devices.
TEST(Eplb, GivesWhatDeepSeeksAlgorithmGives) {
  Matrix<double> loads({2, 12});
  const std::vector<double> values{90, 132, 40,  61, 104, 165, 39,  4,   73,  56, 183, 86,
                                   20, 107, 104, 64, 19,  197, 187, 157, 172, 86, 16,  27};
  std::ranges::copy(values, loads.flat().begin());
  const auto speeds = equal_speeds(4);
  const auto p = solve(find_policy("eplb"), {loads, speeds, 4, 3, 0});
  EXPECT_EQ(row(p, 0), (std::vector<std::int32_t>{10, 3, 7, 5, 8, 6, 1, 11, 2, 4, 0, 9}));
  EXPECT_EQ(row(p, 1), (std::vector<std::int32_t>{5, 3, 11, 6, 9, 4, 8, 2, 10, 7, 1, 0}));
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

TEST(EveryPolicy, PlacesEveryExpertOnceAndPredictsWhatARecomputationGives) {
  int checks = 0;
  for (const auto& policy : policies()) {
    for (const int devices : {1, 2, 8, 64}) {
      for (const std::uint64_t seed : {1U, 2U, 3U}) {
        auto loads = random_loads(3, 64, seed);
        if (seed == 2) {
          std::ranges::fill(loads.row(0), 0.0);  // a silent layer
          std::ranges::fill(loads.row(1), 7.0);  // all equal
          std::ranges::fill(loads.row(2), 0.0);
          loads(2, 5) = 1e12;  // one hot expert
        }
        SpeedModels speeds;
        for (int d = 0; d < devices; ++d) {
          speeds.push_back(SpeedCurve({100, 1000}, {5, 6.0 + d % 3}));
        }
        const Problem problem{loads, speeds, devices, 64 / devices, seed};
        const auto p = solve(policy, problem);
        check_placement(p, 64);
        EXPECT_EQ(p.policy, policy.name);
        for (int layer = 0; layer < 3; ++layer) {
          EXPECT_DOUBLE_EQ(p.predicted_us[static_cast<std::size_t>(layer)],
                           slowest(p, layer, problem));
          EXPECT_LE(p.lower_bound_us[static_cast<std::size_t>(layer)],
                    p.predicted_us[static_cast<std::size_t>(layer)] * (1 + 1e-9));
          ++checks;
        }
      }
    }
  }
  EXPECT_EQ(checks, static_cast<int>(policies().size()) * 36);
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
