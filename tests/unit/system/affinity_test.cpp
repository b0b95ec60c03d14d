#include "system/affinity.hpp"

#include <algorithm>
#include <sched.h>

#include <gtest/gtest.h>

namespace moevar::affinity {
namespace {

TEST(Affinity, UsableCoresAreAscendingAndAllowed) {
  const auto cores = usable_cores();
  ASSERT_FALSE(cores.empty());
  EXPECT_TRUE(std::ranges::is_sorted(cores));
  EXPECT_EQ(std::ranges::adjacent_find(cores), cores.end());
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  for (const int core : cores) {
    EXPECT_TRUE(CPU_ISSET(static_cast<unsigned>(core), &allowed)) << core;
  }
}

TEST(Affinity, BindingTakesTheRankthCoreAndWrapsRound) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const auto cores = usable_cores();
  for (const std::size_t rank : {std::size_t{0}, cores.size() - 1, cores.size()}) {
    const int core = bind_to_core(static_cast<int>(rank));
    EXPECT_EQ(core, cores[rank % cores.size()]);
    cpu_set_t now;
    ASSERT_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    EXPECT_EQ(CPU_COUNT(&now), 1);
    EXPECT_TRUE(CPU_ISSET(static_cast<unsigned>(core), &now));
    EXPECT_EQ(usable_cores(), std::vector<int>{core});
    ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  }
}

TEST(Affinity, NamesAndMemoryAreThere) {
  EXPECT_FALSE(host_name().empty());
  EXPECT_EQ(host_name().find('.'), std::string::npos);
  EXPECT_FALSE(cpu_model().empty());
  EXPECT_GT(available_memory_bytes(), std::size_t{1} << 20U);
  EXPECT_LT(available_memory_bytes(), std::size_t{1} << 50U);
}

}  // namespace
}  // namespace moevar::affinity
