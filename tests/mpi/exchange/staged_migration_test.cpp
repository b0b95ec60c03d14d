#include <algorithm>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "exchange/device_migration.hpp"
#include "host_copy_engine.hpp"

namespace moevar::exchange {
namespace {

constexpr std::size_t kPiece = std::size_t{4} << 20U;

using Weights = std::vector<std::byte>;

Weights weights_of(std::size_t move, std::size_t bytes) {
  Weights weights(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    // cheap, and no two places of a piece, nor the same place of two pieces or moves, look alike
    weights[i] = static_cast<std::byte>(mix(i / 509 + 100003 * move) >> (i % 8));
  }
  return weights;
}

/// `count` moves between made-up devices; some stay on their rank, some on their device.
void move_and_check(const mpi::Communicator& world, int lanes, std::size_t bytes, std::size_t count,
                    std::uint64_t round) {
  LazyStreams streams;
  StagedMigration migration(world, lanes, bytes, std::make_unique<HostCopyEngine>(streams),
                            {"this rank", std::chrono::seconds(60)});
  const auto devices = static_cast<std::uint64_t>(world.size() * lanes);
  std::vector<const cuda::Stream*> all;
  for (std::size_t lane = 0; lane < static_cast<std::size_t>(lanes); ++lane) {
    all.push_back(&streams.stream(lane));
  }
  std::vector<Weights> sources(count);
  std::vector<Weights> targets(count);
  std::vector<WeightMove> moves(count);
  const auto mine = [&](int device) { return device / lanes == world.rank(); };
  for (std::size_t i = 0; i < count; ++i) {
    const RandomKey key = RandomKey(round)[i];
    WeightMove& move = moves[i];
    move.from_device = static_cast<int>(key[0].below(devices));
    move.to_device = static_cast<int>(key[1].below(devices));
    if (mine(move.from_device)) {
      sources[i].resize(bytes);
      move.source = sources[i].data();
      streams.give(*all[static_cast<std::size_t>(move.from_device % lanes)],
                   [&, i] { std::ranges::copy(weights_of(i, bytes), sources[i].begin()); });
    }
    if (mine(move.to_device)) {
      targets[i].resize(bytes);
      move.target = targets[i].data();
    }
  }
  migration.move(moves, all);
  for (std::size_t i = 0; i < count; ++i) {
    if (mine(moves[i].from_device)) {  // whoever comes later may write to them
      streams.give(*all[static_cast<std::size_t>(moves[i].from_device % lanes)],
                   [&, i] { std::ranges::fill(sources[i], std::byte{0xEE}); });
    }
  }
  for (const auto* stream : all) {
    streams.run(*stream);
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (mine(moves[i].to_device)) {
      EXPECT_TRUE(targets[i] == weights_of(i, bytes)) << "move " << i << " of round " << round;
    }
  }
}

TEST(StagedMigration, WeightsArriveWhole) {
  const auto world = mpi::Communicator::world();
  for (const int lanes : {1, 2, 4}) {
    for (std::uint64_t round = 0; round < 4; ++round) {
      move_and_check(world, lanes, 1000 + round, 12, round);
    }
  }
}

TEST(StagedMigration, ManyPiecesOverlap) {
  const auto world = mpi::Communicator::world();
  move_and_check(world, 1, 6 * kPiece + 12345, 3, 5);
  move_and_check(world, 2, kPiece, 6, 6);
}

TEST(StagedMigration, NothingToMoveIsNoWork) {
  const auto world = mpi::Communicator::world();
  move_and_check(world, 1, 100, 0, 0);
}

TEST(StagedMigration, APeerThatDoesNotComeIsAnErrorWithinTheLimit) {
  const auto world = mpi::Communicator::world();
  if (world.size() < 2) {
    GTEST_SKIP() << "needs a peer";
  }
  LazyStreams streams;
  StagedMigration migration(world, 1, 100, std::make_unique<HostCopyEngine>(streams),
                            {"rank 0 on here", std::chrono::milliseconds(200)});
  if (world.is_root()) {
    Weights target(100);
    const WeightMove move{1, 0, nullptr, target.data()};
    const cuda::Stream* stream = &streams.stream(0);
    try {
      migration.move(std::span(&move, 1), std::span(&stream, 1));
      ADD_FAILURE() << "nobody sent anything";
    } catch (const EnvironmentError& error) {
      EXPECT_EQ(std::string_view(error.what()).find("rank 0 on here: migration of weights was not"),
                0U)
          << error.what();
    }
  }
  world.barrier();
  if (world.rank() == 1) {  // the message that was waited for, so that MPI ends in good order
    const Weights late(100);
    MOEVAR_MPI(MPI_Send(late.data(), 100, MPI_BYTE, 0, 93, world.raw()));
  }
  world.barrier();
}

}  // namespace
}  // namespace moevar::exchange
