#include "study/plan.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include <gtest/gtest.h>

#include "study/parse.hpp"

namespace moevar::study {
namespace {

Study two_by_two() {
  Study study;
  study.repeats = 3;
  study.fleet.devices = {8, 16};
  study.conditions.power_cap_w = {700, 500};
  study.conditions.heat = {Heat::ambient, Heat::soaked};
  study.placement.policies = {"contiguous", "random", "eplb", "vibe"};
  return study;
}

using Cell = std::tuple<int, int, double, Heat, std::string>;
Cell cell_of(const PhaseSpec& p) {
  return {p.repeat, p.devices, p.condition.power_cap_w.value_or(0), p.condition.heat, p.policy};
}

TEST(Plan, HoldsEveryCellOnce) {
  const auto plan = make_plan(two_by_two());
  std::set<Cell> cells;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan[i].index, static_cast<int>(i));
    cells.insert(cell_of(plan[i]));
  }
  EXPECT_EQ(plan.size(), 3U * 2 * 2 * 2 * 4);
  EXPECT_EQ(cells.size(), plan.size());
}

TEST(Plan, IsCountedWithoutMakingIt) {
  auto study = two_by_two();
  EXPECT_EQ(phases_of(study), 3 * 2 * 2 * 2 * 4);
  study.causes = true;
  study.fleet.scaling = {Scaling::strong, Scaling::weak};
  study.fleet.pool = 64;
  study.repeats = 100;
  EXPECT_EQ(phases_of(study), std::ssize(make_plan(study)));
  study.conditions.power_cap_w.assign(1 << 20, 700.0);
  study.fleet.devices.assign(1 << 20, 8);
  study.placement.policies.assign(1 << 20, "eplb");
  EXPECT_EQ(phases_of(study), kManyPhases);
}

TEST(Plan, ChangesTheConditionAsSeldomAsPossible) {
  const auto plan = make_plan(two_by_two());
  EXPECT_LE(std::ranges::count(plan, true, &PhaseSpec::new_condition), 3 * 8);
  for (std::size_t i = 1; i < plan.size(); ++i) {
    const bool differs =
        plan[i].devices != plan[i - 1].devices || plan[i].condition != plan[i - 1].condition;
    EXPECT_EQ(plan[i].new_condition, differs);
    EXPECT_GE(plan[i].repeat, plan[i - 1].repeat);
  }
}

TEST(Plan, IsShuffledByTheSeedAndByNothingElse) {
  auto study = two_by_two();
  const auto order = [&] {
    std::vector<Cell> cells;
    for (const auto& phase : make_plan(study)) {
      cells.push_back(cell_of(phase));
    }
    return cells;
  };
  const auto first = order();
  EXPECT_EQ(order(), first);
  study.seed = 2;
  EXPECT_NE(order(), first);
}

TEST(Plan, ListedKeepsTheOrderOfTheFile) {
  auto study = two_by_two();
  study.order = Order::listed;
  const auto plan = make_plan(study);
  EXPECT_EQ(cell_of(plan[0]), Cell(0, 8, 700, Heat::ambient, "contiguous"));
  EXPECT_EQ(cell_of(plan[3]), Cell(0, 8, 700, Heat::ambient, "vibe"));
  EXPECT_EQ(cell_of(plan[4]), Cell(0, 8, 700, Heat::soaked, "contiguous"));
  EXPECT_EQ(cell_of(plan[31]), Cell(0, 16, 500, Heat::soaked, "vibe"));
  EXPECT_EQ(plan[32].repeat, 1);
}

TEST(Plan, WithoutCapsHasOneConditionPerHeat) {
  auto study = two_by_two();
  study.conditions.power_cap_w.clear();
  for (const auto& phase : make_plan(study)) {
    EXPECT_FALSE(phase.condition.power_cap_w.has_value());
  }
}

TEST(Plan, CausesRunEveryCellFourTimes) {
  auto study = two_by_two();
  study.causes = true;
  std::set<std::tuple<Cell, bool, bool>> cells;
  const auto plan = make_plan(study);
  for (std::size_t i = 0; i < plan.size(); ++i) {
    cells.insert({cell_of(plan[i]), plan[i].even_load, plan[i].equal_fleet});
    if (i > 0 && (plan[i].even_load != plan[i - 1].even_load ||
                  plan[i].equal_fleet != plan[i - 1].equal_fleet)) {
      EXPECT_TRUE(plan[i].new_condition);
    }
  }
  EXPECT_EQ(plan.size(), 4 * make_plan(two_by_two()).size());
  EXPECT_EQ(cells.size(), plan.size());
}

TEST(Plan, RealDevicesCannotBeMadeEqual) {
  auto study = two_by_two();
  study.causes = true;
  study.fleet.device = DeviceKind::cpu;
  const auto plan = make_plan(study);
  EXPECT_EQ(plan.size(), 2 * make_plan(two_by_two()).size());
  EXPECT_EQ(std::ranges::count(plan, true, &PhaseSpec::equal_fleet), 0);
  EXPECT_EQ(2 * std::ranges::count(plan, true, &PhaseSpec::even_load), std::ssize(plan));
}

TEST(Plan, ExpertsGrowUnderWeakScalingAlone) {
  Study study;
  study.model.experts = 256;
  study.fleet.devices = {8, 512};
  study.fleet.scaling = {Scaling::strong, Scaling::weak};
  study.fleet.experts_per_device = 4;
  study.placement.fill_slots = true;
  study.placement.policies = {"eplb"};
  study.order = Order::listed;
  const auto plan = make_plan(study);
  ASSERT_EQ(plan.size(), 4U);
  const auto expect = [](const PhaseSpec& phase, int devices, int experts, int slots) {
    EXPECT_EQ(phase.devices, devices);
    EXPECT_EQ(phase.experts, experts);
    EXPECT_EQ(phase.slots_per_device, slots);
  };
  expect(plan[0], 8, 256, 32);
  expect(plan[1], 8, 32, 4);
  expect(plan[2], 512, 256, 1);
  expect(plan[3], 512, 2048, 4);
}

TEST(Plan, SlotsDivideOrAreFilled) {
  Study study;
  study.model.experts = 256;
  EXPECT_EQ(slots_per_device(study, Scaling::strong, 12), 0);
  study.placement.redundant_experts = 8;
  EXPECT_EQ(slots_per_device(study, Scaling::strong, 12), 22);
  EXPECT_EQ(slots_per_device(study, Scaling::strong, 16), 0);
  study.placement.fill_slots = true;
  EXPECT_EQ(slots_per_device(study, Scaling::strong, 16), 17);
  EXPECT_EQ(slots_per_device(study, Scaling::strong, 1000), 1);
}

TEST(Plan, LargeFleetsOfAPoolAreDrawnLessOften) {
  auto study = two_by_two();
  study.repeats = 10;
  study.fleet.pool = 1024;
  study.fleet.devices = {8, 64, 256, 512, 1024};
  std::map<int, std::set<int>> repeats;
  for (const auto& phase : make_plan(study)) {
    repeats[phase.devices].insert(phase.repeat);
  }
  EXPECT_EQ(repeats.at(8).size(), 10U);
  EXPECT_EQ(repeats.at(64).size(), 4U);
  EXPECT_EQ(repeats.at(256).size(), 1U);
  EXPECT_EQ(repeats.at(512).size(), 1U);
  EXPECT_EQ(repeats.at(1024).size(), 1U);
}

TEST(Plan, RatesAreAFactorWithinACondition) {
  auto study = parse(R"([model]
preset = "qwen3-30b"
[conditions]
power_cap_w = [700, 500]
[placement]
policies = ["contiguous", "eplb"]
[study]
order = "listed"
[serving]
rates = [1.0, 2.0]
)",
                     "serving.toml", {})
                   .study;
  EXPECT_TRUE(study.serves());
  const auto plan = make_plan(study);
  ASSERT_EQ(plan.size(), 8U);
  EXPECT_EQ(phases_of(study), 8);
  EXPECT_EQ(plan[0].rate, 1.0);
  EXPECT_EQ(plan[1].rate, 1.0);
  EXPECT_EQ(plan[1].policy, "eplb");
  EXPECT_EQ(plan[2].rate, 2.0);
  EXPECT_FALSE(plan[2].new_condition) << "a rate changes nothing of the devices";
  EXPECT_TRUE(plan[4].new_condition);
  study.serving.rates.clear();
  EXPECT_FALSE(study.serves());
  EXPECT_EQ(make_plan(study).size(), 4U);
  EXPECT_FALSE(make_plan(study).front().rate);
}

TEST(Plan, EveryRepeatOfAPoolIsANewFleet) {
  Study study;
  study.repeats = 3;
  study.fleet.pool = 1024;
  study.placement.policies = {"eplb", "vibe"};
  const auto plan = make_plan(study);
  ASSERT_EQ(plan.size(), 6U);
  for (std::size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan[i].new_condition, i % 2 == 0);
  }
}

}  // namespace
}  // namespace moevar::study
