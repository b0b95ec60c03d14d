#include "run/step_excess.hpp"

#include <gtest/gtest.h>

namespace moevar::run {
namespace {

TEST(StepExcess, IsNothingWhereNothingWasSeen) { EXPECT_EQ(StepExcess{}.at(8.0, 0.5), 0.0); }

TEST(StepExcess, GivesEveryValueItsShare) {
  StepExcess excess;
  for (const double us : {30.0, 10.0, 40.0, 20.0}) {  // in no order
    excess.add(8.0, us);
  }
  EXPECT_EQ(excess.at(8.0, 0.0), 10.0);
  EXPECT_EQ(excess.at(8.0, 0.24), 10.0);
  EXPECT_EQ(excess.at(8.0, 0.25), 20.0);
  EXPECT_EQ(excess.at(8.0, 0.5), 30.0);
  EXPECT_EQ(excess.at(8.0, 0.999999), 40.0);
}

TEST(StepExcess, IsLinearBetweenSizesAndFlatBeyond) {
  StepExcess excess;
  excess.add(4.0, 10.0);
  excess.add(4.0, 100.0);
  excess.add(8.0, 30.0);
  excess.add(8.0, 300.0);
  EXPECT_EQ(excess.at(6.0, 0.1), 20.0);
  EXPECT_EQ(excess.at(6.0, 0.9), 200.0);
  EXPECT_EQ(excess.at(7.0, 0.1), 25.0);
  EXPECT_EQ(excess.at(1.0, 0.9), 100.0);
  EXPECT_EQ(excess.at(99.0, 0.1), 30.0);
}

TEST(StepExcess, MayBeNegative) {
  StepExcess excess;
  excess.add(4.0, -7.5);
  EXPECT_EQ(excess.at(4.0, 0.5), -7.5);
}

}  // namespace
}  // namespace moevar::run
