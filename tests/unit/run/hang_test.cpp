#include "run/hang.hpp"

#include <gtest/gtest.h>

namespace moevar::run {
namespace {

constexpr Seconds kLimit{10.0};
constexpr std::uint64_t kToken = 7;

/// A rank in the steps of phase 4, in a call of MPI or not.
Beat beat(int rank, std::uint64_t moves, const char* call = nullptr) {
  return Beat::of({.moves = moves,
                   .call = call,
                   .stage = "steps",
                   .phase = 4,
                   .step = 2,
                   .first_device = 8 * rank,
                   .devices = 8},
                  kToken, rank);
}

class HangTest : public ::testing::Test {
 protected:
  Lookout lookout_{{"a", "a", "b"}, kLimit, Seconds(100.0)};

  void hear_all(double now, std::uint64_t moves) {
    for (int rank = 0; rank < 3; ++rank) {
      lookout_.hear(beat(rank, moves), Seconds(now));
    }
  }
  [[nodiscard]] std::string verdict(double now) const {
    return lookout_.verdict(Seconds(now)).value_or("");
  }
};

TEST_F(HangTest, AllIsWellWhileAnyRankGetsSomewhere) {
  for (int second = 0; second < 100; ++second) {
    lookout_.hear(beat(0, 1, "MPI_Barrier(comm_)"), Seconds(100.0 + second));
    lookout_.hear(beat(1, 1, "MPI_Barrier(comm_)"), Seconds(100.0 + second));
    lookout_.hear(beat(2, static_cast<std::uint64_t>(second / 9)), Seconds(100.0 + second));
    EXPECT_EQ(verdict(100.0 + second), "");
  }
}

TEST_F(HangTest, NamesARankThatFallsSilent) {
  hear_all(100.0, 1);
  for (int second = 1; second <= 10; ++second) {
    lookout_.hear(beat(0, 2), Seconds(100.0 + second));
    lookout_.hear(beat(1, 2, "MPI_Barrier(comm_)"), Seconds(100.0 + second));
    EXPECT_EQ(verdict(100.0 + second), "");
  }
  EXPECT_EQ(verdict(110.1),
            "no sign of life for 10 s of rank 2 on b (devices 16-23), last in phase 4, steps, step "
            "2; the job ends");
}

TEST_F(HangTest, NamesTheRankThatAllOthersWaitFor) {
  for (int second = 0; second < 20; ++second) {
    lookout_.hear(beat(0, 5, "MPI_Allreduce(a, b)"), Seconds(100.0 + second));
    lookout_.hear(beat(1, 9), Seconds(100.0 + second));
    lookout_.hear(beat(2, 5, "MPI_Allreduce(a, b)"), Seconds(100.0 + second));
    EXPECT_EQ(verdict(100.0 + second) != "", second > 10) << second;
  }
  EXPECT_EQ(
      verdict(119.0),
      "rank 1 on a (devices 8-15), last in phase 4, steps, step 2 did not arrive within 10 s, "
      "2 wait for it; the job ends");
}

TEST_F(HangTest, RanksThatAllWorkForLongKeepNobody) {
  for (int second = 0; second < 100; ++second) {
    hear_all(100.0 + second, 1);
    EXPECT_EQ(verdict(100.0 + second), "");
  }
}

TEST_F(HangTest, SaysWhereAllAreWhereAllWait) {
  for (int second = 0; second < 20; ++second) {
    lookout_.hear(beat(0, 5, "MPI_Bcast(a)"), Seconds(100.0 + second));
    lookout_.hear(beat(1, 9, "MPI_Barrier(b)"), Seconds(100.0 + second));
    lookout_.hear(beat(2, 5, "MPI_Bcast(a)"), Seconds(100.0 + second));
  }
  const auto line = verdict(119.0);
  EXPECT_NE(line.find("all wait for each other"), std::string::npos) << line;
  EXPECT_NE(line.find("rank 1 on a (devices 8-15), last in phase 4, steps, step 2, in MPI_Barrier"),
            std::string::npos)
      << line;
}

TEST_F(HangTest, ARankThatWasNeverHeardOfIsNotSilentButMayBeAwaited) {
  lookout_.hear(beat(0, 5, "MPI_Bcast(a)"), Seconds(100.0));
  lookout_.hear(beat(1, 5, "MPI_Bcast(a)"), Seconds(100.0));
  for (int second = 0; second < 30; ++second) {
    lookout_.hear(beat(0, 5 + static_cast<std::uint64_t>(second)), Seconds(100.0 + second));
    lookout_.hear(beat(1, 5, "MPI_Bcast(a)"), Seconds(100.0 + second));
    EXPECT_EQ(verdict(100.0 + second), "") << "no way for its packets";
  }
  for (int second = 30; second < 50; ++second) {
    lookout_.hear(beat(0, 34, "MPI_Bcast(a)"), Seconds(100.0 + second));
    lookout_.hear(beat(1, 5, "MPI_Bcast(a)"), Seconds(100.0 + second));
  }
  EXPECT_NE(verdict(149.0).find("rank 2 on b (never heard of) did not arrive"), std::string::npos)
      << verdict(149.0);
}

TEST_F(HangTest, AWatcherThatSleptBlamesNobody) {
  hear_all(100.0, 1);
  lookout_.forgive(Seconds(500.0));
  EXPECT_EQ(verdict(509.0), "");
  EXPECT_NE(verdict(511.0), "");
}

TEST_F(HangTest, ManyRanksAreCounted) {
  Lookout many(std::vector<std::string>(100, "host"), kLimit, Seconds(0.0));
  for (int rank = 0; rank < 100; ++rank) {
    many.hear(beat(rank, 1), Seconds(0.0));
  }
  const auto line = many.verdict(Seconds(11.0)).value_or("");
  EXPECT_NE(line.find("; and 92 more"), std::string::npos) << line;
  EXPECT_LT(line.size(), 1000U);
}

TEST_F(HangTest, WhatCameOverTheNetworkIsShownAsPlainText) {
  auto strange = beat(1, 1);
  strange.stage.fill('\x1b');
  strange.rank = 1;
  lookout_.hear(strange, Seconds(100.0));
  strange.rank = 1000;
  lookout_.hear(strange, Seconds(100.0));
  strange.rank = -1;
  lookout_.hear(strange, Seconds(100.0));
  const auto line = lookout_.verdict_of(1, Seconds(111.0)).value_or("");
  EXPECT_EQ(line.find('\x1b'), std::string::npos);
  EXPECT_NE(line.find("????"), std::string::npos);
}

}  // namespace
}  // namespace moevar::run
