#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "cases.hpp"

namespace moevar::placement {
namespace {

TEST(Sorted, DealsHeavyExpertsToFastDevicesInSnakeOrder) {
  const auto loads = one_layer({8, 7, 6, 5, 4, 3, 2, 1});
  const SpeedModels speeds{proportional(2), proportional(4), proportional(1), proportional(3)};
  // fastest first: 2 0 3 1, then back
  EXPECT_EQ(row(solve(find_policy("sorted"), {loads, speeds, 4, 2, 0}), 0),
            (Slots{1, 6, 3, 4, 0, 7, 2, 5}));
  const auto equal = equal_speeds(4);
  EXPECT_EQ(row(solve(find_policy("sorted"), {loads, equal, 4, 2, 0}), 0),
            (Slots{0, 7, 1, 6, 2, 5, 3, 4}));
}

int copies_of(const Placement& p, std::int32_t expert) {
  return static_cast<int>(std::ranges::count(p.expert_of_slot.row(0), expert));
}

TEST(EplbSteps, CopiesWhatIsHottestInItsStepNotOnAverage) {
  // expert 0 leads nine steps by a little, expert 2 the tenth by far
  std::vector<std::vector<double>> steps(10, {60, 58, 0});
  steps[9] = {60, 58, 200};
  const Trace trace(steps);
  const auto speeds = equal_speeds(2);
  Problem problem{trace.mean, speeds, 2, 2, 0};
  problem.trace = &trace.steps;
  EXPECT_EQ(copies_of(solve(find_policy("eplb"), problem), 0), 2);
  const auto p = solve(find_policy("eplb_steps"), problem);
  EXPECT_EQ(copies_of(p, 2), 2);
  EXPECT_EQ(copies_of(p, 0), 1);
}

/// Σ over steps of the largest load per copy.
double sum_of_maxima(const Trace& trace, const std::vector<int>& copies) {
  double sum = 0;
  for (std::size_t t = 0; t < trace.steps.extent(0); ++t) {
    double most = 0;
    for (std::size_t e = 0; e < copies.size(); ++e) {
      most = std::max(most, trace.steps(t, 0, e) / copies[e]);
    }
    sum += most;
  }
  return sum;
}

TEST(EplbSteps, ReplicatesAsItsDefinitionDoesStepByStep) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<std::vector<double>> steps;
    for (std::uint64_t t = 0; t < 6; ++t) {
      const auto loads = random_loads(1, 24, 100 * seed + t);
      steps.emplace_back(loads.flat().begin(), loads.flat().end());
    }
    const Trace trace(steps);
    std::vector<int> copies(24, 1);
    for (int redundant = 0; redundant < 16; ++redundant) {
      std::size_t best = 0;
      double least = 1e300;
      for (std::size_t e = 0; e < copies.size(); ++e) {
        ++copies[e];
        const double sum = sum_of_maxima(trace, copies);
        --copies[e];
        if (copies[e] < 8 && sum < least) {
          least = sum;
          best = e;
        }
      }
      ++copies[best];
    }
    const auto speeds = equal_speeds(8);
    Problem problem{trace.mean, speeds, 8, 5, 0};
    problem.trace = &trace.steps;
    const auto p = solve(find_policy("eplb_steps"), problem);
    for (std::int32_t e = 0; e < 24; ++e) {
      EXPECT_EQ(copies_of(p, e), copies[static_cast<std::size_t>(e)]) << seed << " " << e;
    }
  }
}

TEST(EplbSteps, KeepsGroupsOnTheirNodes) {
  const auto loads = random_loads(3, 16, 11);
  const auto speeds = equal_speeds(8);
  Problem problem{loads, speeds, 8, 3, 0};
  problem.groups = 4;
  problem.nodes = 2;
  const auto p = solve(find_policy("eplb_steps"), problem);
  for (int layer = 0; layer < 3; ++layer) {
    std::vector<int> node_of_group(4, -1);
    for (int slot = 0; slot < 24; ++slot) {
      auto& node = node_of_group[static_cast<std::size_t>(p.expert_of_slot(layer, slot) / 4)];
      EXPECT_TRUE(node == -1 || node == slot / 12);
      node = slot / 12;
    }
  }
}

TEST(FlashLb, KeepsExpertsThatBurstTogetherApart) {
  // 0 and 1 burst in the first step, 2 and 3 in the second; all have the same mean and variance
  const Trace trace({{90, 90, 10, 10}, {10, 10, 90, 90}});
  const auto speeds = equal_speeds(2);
  Problem problem{trace.mean, speeds, 2, 2, 0};
  problem.trace = &trace.steps;
  const auto p = solve(find_policy("flashlb"), problem);
  EXPECT_NE(device_of(p, 0, 0), device_of(p, 0, 1));
  EXPECT_NE(device_of(p, 0, 2), device_of(p, 0, 3));
  EXPECT_DOUBLE_EQ(p.predicted_us[0], 100);
}

TEST(FlashLb, CopiesTheRiskyExpertOfTwoWithTheSameMean) {
  const Trace trace({{100, 0, 40, 40, 40, 40, 40}, {100, 200, 40, 40, 40, 40, 40}});
  const auto speeds = equal_speeds(4);
  Problem problem{trace.mean, speeds, 4, 2, 0};
  problem.trace = &trace.steps;
  EXPECT_EQ(copies_of(solve(find_policy("flashlb"), problem), 1), 2);
  EXPECT_EQ(copies_of(solve(find_policy("eplb"), problem), 0), 2);  // by the mean: a tie
}

TEST(FlashLb, WithoutATraceAndReplicasIsEplb) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const auto loads = random_loads(4, 64, seed);
    const auto speeds = equal_speeds(8);
    EXPECT_EQ(solve(find_policy("flashlb"), {loads, speeds, 8, 8, 0}).expert_of_slot,
              solve(find_policy("eplb"), {loads, speeds, 8, 8, 0}).expert_of_slot);
  }
}

}  // namespace
}  // namespace moevar::placement
