#include "placement/replicas.hpp"

#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "cases.hpp"

namespace moevar::placement {
namespace {

/// Slots of a device that hold what another slot of it holds.
int doubled(const Slots& expert_of_slot, int width) {
  int count = 0;
  std::set<std::int32_t> here;
  for (std::size_t slot = 0; slot < expert_of_slot.size(); ++slot) {
    if (slot % static_cast<std::size_t>(width) == 0) {
      here.clear();
    }
    count += here.insert(expert_of_slot[slot]).second ? 0 : 1;
  }
  return count;
}

TEST(SeparateReplicas, TakesTheNearestLoad) {
  Slots slots{0, 0, 1, 2, 3, 4};
  std::vector<double> loads{5, 5, 9, 4, 7, 1};
  separate_replicas(2, slots, loads);
  EXPECT_EQ(slots, (Slots{2, 0, 1, 0, 3, 4}));
  EXPECT_EQ(loads, (std::vector<double>{4, 5, 9, 5, 7, 1}));
}

TEST(SeparateReplicas, LeavesNoneDoubledWhereverNoExpertHasMoreCopiesThanDevices) {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    const RandomKey key(seed);
    const int devices = 1 + static_cast<int>(key[0].below(12));
    const int experts = 1 + static_cast<int>(key[1].below(12));
    const int width = 1 + static_cast<int>(key[2].below(static_cast<std::size_t>(experts)));
    Slots slots(static_cast<std::size_t>(devices * width));
    for (std::size_t i = 0; i < slots.size(); ++i) {
      slots[i] = static_cast<std::int32_t>(i) % experts;
    }
    for (std::size_t i = slots.size(); i > 1; --i) {
      std::swap(slots[i - 1], slots[key[3][i].below(i)]);
    }
    std::vector<double> loads(slots.size());
    std::iota(loads.begin(), loads.end(), 0.0);
    const auto before = std::multiset<std::int32_t>(slots.begin(), slots.end());
    separate_replicas(width, slots, loads);
    EXPECT_EQ(doubled(slots, width), 0) << "seed " << seed << ": " << testing::PrintToString(slots);
    EXPECT_EQ(std::multiset<std::int32_t>(slots.begin(), slots.end()), before);
  }
}

}  // namespace
}  // namespace moevar::placement
