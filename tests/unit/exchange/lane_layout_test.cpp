#include "exchange/lane_layout.hpp"

#include <limits>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::exchange {
namespace {

/// Counts of this rank's lanes, and what a dispatch of them looks like.
struct Counted {
  std::vector<std::vector<std::int64_t>> to;
  std::vector<std::vector<std::int64_t>> from;

  std::vector<DispatchLane> lanes(std::int64_t room = 1000) {
    std::vector<DispatchLane> all(to.size());
    for (std::size_t lane = 0; lane < to.size(); ++lane) {
      all[lane].rows_to = to[lane];
      all[lane].rows_from = from[lane];
      all[lane].room = room;
    }
    return all;
  }
};

TEST(LanePlanner, OneLaneCopiesInOnePieceAroundItsOwnRows) {
  // rank 1 of 3, two slots: 3 rows to rank 0, 4 to itself, 1 to rank 2; 2, 4 and 5 come
  Counted counted{{{1, 2, 4, 0, 0, 1}}, {{2, 0, 4, 0, 3, 2}}};
  LanePlanner planner({1, 2, 2, Counts::known}, 1, 3);
  const auto& layout = planner.plan(counted.lanes());
  EXPECT_EQ(layout.sent.count, (std::vector<int>{3, 0, 1}));
  EXPECT_EQ(layout.sent.begin, (std::vector<int>{0, 3, 3}));
  EXPECT_EQ(layout.received.count, (std::vector<int>{2, 0, 5}));
  EXPECT_EQ(layout.received.begin, (std::vector<int>{0, 2, 2}));
  EXPECT_EQ(layout.out, (std::vector<BufferCopy>{{0, 0, 0, 3}, {0, 7, 3, 1}}));
  EXPECT_EQ(layout.in, (std::vector<BufferCopy>{{0, 0, 0, 2}, {0, 6, 2, 5}}));
  EXPECT_EQ(layout.local, (std::vector<LaneCopy>{{0, 0, 3, 2, 4}}));
  EXPECT_EQ(layout.leaves, std::vector<std::int64_t>{8});
  EXPECT_EQ(layout.comes, std::vector<std::int64_t>{11});
}

TEST(LanePlanner, LanesLieBehindOneAnotherInTheBuffers) {
  // rank 0 of 2, two lanes, one slot: devices 0, 1 are its own, 2, 3 the other rank's
  Counted counted{{{1, 2, 3, 4}, {5, 6, 7, 8}}, {{1, 5, 9, 10}, {2, 6, 11, 12}}};
  LanePlanner planner({2, 1, 2, Counts::known}, 0, 2);
  const auto& layout = planner.plan(counted.lanes());
  EXPECT_EQ(layout.sent.count, (std::vector<int>{0, 22}));
  EXPECT_EQ(layout.out, (std::vector<BufferCopy>{{0, 3, 0, 7}, {1, 11, 7, 15}}));
  // from device 2: 9 rows for lane 0, 11 for lane 1; from device 3: 10 and 12
  EXPECT_EQ(layout.received.count, (std::vector<int>{0, 42}));
  EXPECT_EQ(layout.in, (std::vector<BufferCopy>{
                           {0, 6, 0, 9}, {1, 8, 9, 11}, {0, 15, 20, 10}, {1, 19, 30, 12}}));
  EXPECT_EQ(layout.local, (std::vector<LaneCopy>{
                              {0, 0, 0, 0, 1}, {0, 1, 1, 0, 2}, {1, 0, 0, 1, 5}, {1, 1, 5, 2, 6}}));
  EXPECT_EQ(layout.leaves, (std::vector<std::int64_t>{10, 26}));
  EXPECT_EQ(layout.comes, (std::vector<std::int64_t>{25, 31}));
}

TEST(LanePlanner, PlansAnewEveryTime) {
  LanePlanner planner({1, 1, 2, Counts::known}, 0, 2);
  Counted first{{{3, 4}}, {{3, 5}}};
  planner.plan(first.lanes());
  Counted second{{{0, 1}}, {{0, 0}}};
  const auto& layout = planner.plan(second.lanes());
  EXPECT_EQ(layout.out, (std::vector<BufferCopy>{{0, 0, 0, 1}}));
  EXPECT_TRUE(layout.in.empty());
  EXPECT_TRUE(layout.local.empty());
  EXPECT_EQ(layout.received.total, 0);
}

TEST(LanePlanner, RefusesWhatDoesNotFit) {
  LanePlanner planner({1, 1, 2, Counts::known}, 0, 2);
  Counted counted{{{3, 4}}, {{3, 5}}};
  EXPECT_THROW(planner.plan(counted.lanes(7)), CheckError);
  EXPECT_NO_THROW(planner.plan(counted.lanes(8)));
  Counted short_of_one{{{3}}, {{3, 5}}};
  EXPECT_THROW(planner.plan(short_of_one.lanes()), CheckError);
  Counted two_lanes{{{3, 4}, {3, 4}}, {{3, 5}, {3, 5}}};
  EXPECT_THROW(planner.plan(two_lanes.lanes()), CheckError);
  const std::int64_t most = std::numeric_limits<int>::max();
  Counted many{{{3, most}}, {{3, most}}};
  EXPECT_NO_THROW(planner.plan(many.lanes(2 * most)));
  Counted too_many{{{3, 4}}, {{3, most + 1}}};
  EXPECT_THROW(planner.plan(too_many.lanes(2 * most)), EnvironmentError);
}

}  // namespace
}  // namespace moevar::exchange
