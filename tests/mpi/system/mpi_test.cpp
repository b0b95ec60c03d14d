#include "system/mpi.hpp"

#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace moevar::mpi {
namespace {

TEST(Mpi, BroadcastReachesEveryRank) {
  const auto world = Communicator::world();
  std::string text = world.is_root() ? "one study" : "";
  world.broadcast(text);
  EXPECT_EQ(text, "one study");
  std::vector<double> values(3, world.is_root() ? 2.5 : 0.0);
  world.broadcast(std::span(values));
  EXPECT_EQ(values, std::vector<double>(3, 2.5));
}

TEST(Mpi, ReductionsAreElementWise) {
  const auto world = Communicator::world();
  std::vector<std::int64_t> values{world.rank(), -world.rank(), 1};
  auto max = values;
  world.all_reduce_max(max);
  EXPECT_EQ(max, (std::vector<std::int64_t>{world.size() - 1, 0, 1}));
  auto min = values;
  world.all_reduce_min(min);
  EXPECT_EQ(min, (std::vector<std::int64_t>{0, 1 - world.size(), 1}));
  world.all_reduce_sum(values);
  EXPECT_EQ(values[2], world.size());
}

TEST(Mpi, GathersUnevenPiecesInRankOrder) {
  const auto world = Communicator::world();
  // rank r brings r elements, so rank 0 brings none
  const std::vector<std::int64_t> mine(static_cast<std::size_t>(world.rank()), world.rank());
  std::vector<std::int64_t> expected;
  for (int r = 0; r < world.size(); ++r) {
    expected.insert(expected.end(), static_cast<std::size_t>(r), r);
  }
  std::vector<std::int64_t> all(expected.size());
  world.all_gather(std::span<const std::int64_t>(mine), all);
  EXPECT_EQ(all, expected);
  std::vector<std::int64_t> at_root(world.is_root() ? expected.size() : 0);
  world.gather(std::span<const std::int64_t>(mine), at_root);
  if (world.is_root()) {
    EXPECT_EQ(at_root, expected);
  }
}

TEST(Mpi, GathersTextOfAnyLength) {
  const auto world = Communicator::world();
  const auto all = world.all_gather(std::string(static_cast<std::size_t>(world.rank()), 'x'));
  ASSERT_EQ(all.size(), static_cast<std::size_t>(world.size()));
  for (std::size_t r = 0; r < all.size(); ++r) {
    EXPECT_EQ(all[r], std::string(r, 'x'));
  }
}

TEST(Mpi, SplitLeavesTheOthersWithAnEmptyCommunicator) {
  const auto world = Communicator::world();
  const auto part = world.split(world.rank() == 0 ? 0 : -1);
  EXPECT_EQ(part.size(), world.is_root() ? 1 : 0);
  EXPECT_GE(world.split_by_node().size(), 1);
}

TEST(Mpi, AnErrorOfTheRootIsEveryRanks) {
  const auto world = Communicator::world();
  int ran = 0;
  try {
    on_root(world, [&] {
      ++ran;
      throw InputError("no such file");
    });
    FAIL() << "nothing thrown";
  } catch (const SharedError& error) {
    EXPECT_STREQ(error.what(), "no such file");
    EXPECT_EQ(error.status(), ExitStatus::bad_input);
  }
  EXPECT_EQ(ran, world.is_root() ? 1 : 0);
}

TEST(Mpi, AnErrorOfAnyRankIsEveryRanks) {
  const auto world = Communicator::world();
  const int culprit = world.size() - 1;
  try {
    on_all(world, [&] {
      if (world.rank() == culprit) {
        throw std::runtime_error("out of luck");
      }
    });
    FAIL() << "nothing thrown";
  } catch (const SharedError& error) {
    EXPECT_STREQ(error.what(), "out of luck");
    EXPECT_EQ(error.status(), ExitStatus::environment);
  }
  on_all(world, [] {});
}

TEST(Mpi, AFailedCallNamesItself) {
  int value = 0;
  try {
    MOEVAR_MPI(MPI_Bcast(&value, 1, MPI_INT, 1000, MPI_COMM_WORLD));
    FAIL() << "nothing thrown";
  } catch (const LibraryError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("MPI_Bcast"), std::string::npos);
    EXPECT_NE(text.find("mpi_test.cpp:"), std::string::npos);
    EXPECT_NE(text.find("invalid root"), std::string::npos);
  }
}

}  // namespace
}  // namespace moevar::mpi
