#include "study/plan.hpp"

#include <algorithm>
#include <set>
#include <tuple>

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace moevar::study
