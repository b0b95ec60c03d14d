#include "timeline/clock.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::timeline {
namespace {

/// A clock that differs from this node's by an offset and a drift of this rank's own.
struct SkewedClock {
  Nanoseconds start = 0;
  Nanoseconds offset = 0;
  double drift = 0.0;
  [[nodiscard]] Nanoseconds at(Nanoseconds raw) const {
    return raw + offset + std::llround(drift * static_cast<double>(raw - start));
  }
};

/// The clock of `rank`; all ranks know all clocks.
SkewedClock clock_of(int rank, Nanoseconds start) {
  return {start, rank * 7'000'000'000LL - 3'000, (rank % 2 == 0 ? 1.0 : -1.0) * rank * 1.5e-5};
}

TEST(CommonClock, RecoversInjectedOffsetsAndDriftsWithinTheResidual) {
  const auto world = mpi::Communicator::world();
  Nanoseconds start = monotonic_raw_ns();
  world.broadcast(std::span(&start, 1));
  const auto mine = clock_of(world.rank(), start);
  const auto root = clock_of(0, start);
  SyncOptions options;
  options.one_clock_per_node = false;
  options.now = [&] { return mine.at(monotonic_raw_ns()); };

  const auto before = synchronise(world, options);
  const Nanoseconds middle = monotonic_raw_ns();
  const auto after = synchronise(world, options);
  const auto line = between(before.fit, after.fit);
  const Nanoseconds residual = std::max(before.fleet_residual_ns, after.fleet_residual_ns);

  for (const auto& sync : {before, after}) {
    EXPECT_LE(sync.fit.residual_ns, sync.fleet_residual_ns);
    const Nanoseconds raw = sync.fit.at - (mine.at(start) - start);  // to a few hundred ns
    EXPECT_NEAR(static_cast<double>(sync.fit.to_other(mine.at(raw)) - root.at(raw)), 0.0,
                static_cast<double>(sync.fit.residual_ns) + 2.0);
  }
  EXPECT_NEAR(static_cast<double>(line.to_other(mine.at(middle)) - root.at(middle)), 0.0,
              static_cast<double>(residual) + 2.0);
  if (world.is_root()) {
    EXPECT_EQ(before.fit.residual_ns, 0);
    EXPECT_EQ(before.fit.to_other(123'456'789), 123'456'789);
    std::printf("injected clocks: residual %lld ns, round trip %lld ns\n",
                static_cast<long long>(residual),
                static_cast<long long>(before.fit.min_round_trip_ns));
  }
}

/// After synchronisation a message never arrives before it was sent by more than the residual.
void expect_causal_readings(const mpi::Communicator& world, const ClockSource& now,
                            const CommonClock& common) {
  const auto reading = [&] { return common.fit.to_other(now()); };
  const auto to_reading = [&](int from, int to, Nanoseconds& sent) {
    if (world.rank() == from) {
      sent = reading();
      MOEVAR_MPI(MPI_Send(&sent, 1, MPI_INT64_T, to, 5, world.raw()));
    } else if (world.rank() == to) {
      MOEVAR_MPI(MPI_Recv(&sent, 1, MPI_INT64_T, from, 5, world.raw(), MPI_STATUS_IGNORE));
      EXPECT_GE(reading() - sent, -2 * common.fleet_residual_ns);
    }
  };
  for (int round = 0; round < 20; ++round) {
    for (int rank = 1; rank < world.size(); ++rank) {
      Nanoseconds sent = 0;
      to_reading(0, rank, sent);
      to_reading(rank, 0, sent);
    }
  }
}

TEST(CommonClock, ExchangedReadingsAgreeWithinTheResidual) {
  const auto world = mpi::Communicator::world();
  const auto shared = synchronise(world);
  expect_causal_readings(world, monotonic_raw_ns, shared);
  EXPECT_EQ(shared.fit.to_other(987'654'321), 987'654'321) << "one node, one clock";

  const auto mine = clock_of(world.rank(), monotonic_raw_ns());
  SyncOptions options;
  options.one_clock_per_node = false;
  options.now = [&] { return mine.at(monotonic_raw_ns()); };
  expect_causal_readings(world, options.now, synchronise(world, options));
}

TEST(CommonClock, RanksOfANodeWithDifferentClocksAreRefused) {
  const auto world = mpi::Communicator::world();
  SyncOptions options;
  options.now = [&] { return monotonic_raw_ns() + world.rank() * 1'000'000'000LL; };
  if (world.size() == 1) {
    EXPECT_NO_THROW(synchronise(world, options));
    return;
  }
  try {
    synchronise(world, options);
    ADD_FAILURE() << "accepted clocks a second apart";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), ExitStatus::environment);
    EXPECT_NE(std::string(error.what()).find("rank 1 reads another"), std::string::npos);
  }
}

}  // namespace
}  // namespace moevar::timeline
