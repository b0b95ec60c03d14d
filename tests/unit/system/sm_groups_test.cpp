#include "system/sm_groups.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::cuda {
namespace {

TEST(SmGroups, RoundsUpToWholeGroups) {
  EXPECT_EQ(sm_groups(std::vector{24, 24, 32, 48}, 16, 8), (std::vector{3, 3, 4, 6}));
  EXPECT_EQ(sm_groups(std::vector{1, 9, 8}, 16, 8), (std::vector{1, 2, 1}));
}

TEST(SmGroups, SaysWhatTheGpuHas) {
  try {
    sm_groups(std::vector{64, 64, 4}, 16, 8);
    FAIL() << "more than there is";
  } catch (const EnvironmentError& error) {
    EXPECT_STREQ(error.what(),
                 "parts of 64 + 64 + 4 SMs take 17 groups of 8; this GPU gives 16 of them, 128 SMs "
                 "in all");
  }
  EXPECT_THROW(sm_groups(std::vector{2147483647, 2147483647}, 16, 8), EnvironmentError);
}

TEST(SmGroups, RefusesPartsOfNothing) {
  EXPECT_THROW(sm_groups(std::vector{8, 0}, 16, 8), InputError);
  EXPECT_THROW(sm_groups(std::vector{-8}, 16, 8), InputError);
  EXPECT_THROW(sm_groups({}, 16, 8), InputError);
}

}  // namespace
}  // namespace moevar::cuda
