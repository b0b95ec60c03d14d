#include <gtest/gtest.h>

#include "cases.hpp"

namespace moevar::placement {
namespace {

Placement planned(const char* policy, const std::vector<double>& loads, const SpeedModels& speeds) {
  const auto layer = one_layer(loads);
  const auto devices = static_cast<int>(speeds.size());
  return solve(find_policy(policy),
               {layer, speeds, devices, static_cast<int>(loads.size()) / devices, 0});
}

Placement owners(int devices, std::size_t experts) {
  const Matrix<double> loads({1, experts}, 1.0);
  const auto speeds = equal_speeds(devices);
  return solve(find_policy("contiguous"),
               {loads, speeds, devices, static_cast<int>(experts) / devices, 0});
}

std::vector<double> shares(const Placement& p) {
  const auto row = p.share_of_slot.row(0);
  return {row.begin(), row.end()};
}

TEST(Harmoeny, ShiftsTheFullestExpertToTheEmptiestDeviceUntilBothHoldTheMean) {
  const auto p = planned("harmoeny", {1000, 200, 100, 100}, equal_speeds(2));
  ASSERT_EQ(p.slots_per_device, 3);
  EXPECT_EQ(row(p, 0), (Slots{0, 1, 0, 2, 3, 0}));
  EXPECT_EQ(shares(p), (std::vector<double>{0.5, 1, 0, 1, 1, 0.5}));
  EXPECT_DOUBLE_EQ(p.predicted_us[0], 700);
  // the filler of device 0 is no fetched expert
  const auto moves = moves_between(owners(2, 4), p);
  ASSERT_EQ(moves.size(), 1U);
  EXPECT_EQ(moves[0].expert, 0);
  EXPECT_EQ(moves[0].from_device, 0);
  EXPECT_EQ(moves[0].to_device, 1);
}

TEST(Harmoeny, LeavesWhatIsNotWorthATransfer) {
  // 149 tokens short of the mean of 700: fewer than q
  auto p = planned("harmoeny", {849, 0, 551, 0}, equal_speeds(2));
  EXPECT_EQ(p.slots_per_device, 2);
  EXPECT_DOUBLE_EQ(p.predicted_us[0], 849);
  // 150 short: just worth it
  p = planned("harmoeny", {850, 0, 550, 0}, equal_speeds(2));
  EXPECT_EQ(p.slots_per_device, 3);
  EXPECT_DOUBLE_EQ(p.predicted_us[0], 700);
  // the fullest device's experts are all below q
  p = planned("harmoeny", {149, 149, 149, 149, 149, 149, 0, 0, 0, 0, 0, 0}, equal_speeds(2));
  EXPECT_DOUBLE_EQ(p.predicted_us[0], 6 * 149);
  EXPECT_TRUE(moves_between(owners(2, 12), p).empty());
}

TEST(Harmoeny, SpreadsOneHotExpertOverAllDevices) {
  const auto p = planned("harmoeny", {8000, 0, 0, 0, 0, 0, 0, 0}, equal_speeds(8));
  EXPECT_EQ(moves_between(owners(8, 8), p).size(), 7U);
  EXPECT_DOUBLE_EQ(p.predicted_us[0], 1000);
}

TEST(HarmoenySpeed, ShiftsByTheSpeedOfDevicesAndIsHarmoenyWhereTheyAreEqual) {
  const auto p = planned("harmoeny_speed", {1500, 0, 1500, 0}, {proportional(1), proportional(2)});
  EXPECT_NEAR(p.predicted_us[0], 2000, 1e-6);  // 2000 tokens and 1000
  EXPECT_EQ(moves_between(owners(2, 4), p).size(), 1U);
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    auto loads = random_loads(3, 32, seed);
    for (double& load : loads.flat()) {
      load = std::floor(load);
    }
    const auto speeds = equal_speeds(4);
    const auto even = solve(find_policy("harmoeny"), {loads, speeds, 4, 8, 0});
    const auto by_speed = solve(find_policy("harmoeny_speed"), {loads, speeds, 4, 8, 0});
    EXPECT_EQ(even.expert_of_slot, by_speed.expert_of_slot);
    for (std::size_t layer = 0; layer < 3; ++layer) {
      EXPECT_NEAR(even.predicted_us[layer], by_speed.predicted_us[layer], 1e-6);
    }
  }
}

TEST(Harmoeny, PlansEveryStepWithItsOwnLoads) {
  const Trace trace({{1000, 0, 0, 0}, {0, 0, 0, 1000}});
  const auto speeds = equal_speeds(2);
  Problem problem{trace.mean, speeds, 2, 2, 0};
  problem.trace = &trace.steps;
  const auto plans = solve_steps(find_policy("harmoeny"), problem);
  ASSERT_EQ(plans.size(), 2U);
  for (const auto& plan : plans) {
    EXPECT_DOUBLE_EQ(plan.predicted_us[0], 500);
    EXPECT_EQ(moves_between(owners(2, 4), plan).size(), 1U);
  }
}

}  // namespace
}  // namespace moevar::placement
