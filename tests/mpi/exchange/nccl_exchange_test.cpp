#include "exchange/nccl_exchange.hpp"

#include <algorithm>
#include <cstdlib>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "exchange/nccl_migration.hpp"
#include "host_copy_engine.hpp"
#include "lane_traffic.hpp"
#include "system/cuda.hpp"

namespace moevar::exchange {
namespace {

constexpr std::size_t kLength = 5;
constexpr int kSlots = 3;

/// Through NCCL's stand-in (tests/fake_nccl) and host memory: what is sent where is the same as on
/// GPUs.
class NcclExchangeTest : public testing::TestWithParam<Counts> {
 protected:
  static void SetUpTestSuite() { setenv("MOEVAR_NCCL", MOEVAR_FAKE_NCCL_LIBRARY, 1); }

  std::unique_ptr<CopyEngine> engine() { return std::make_unique<HostCopyEngine>(streams_); }

  mpi::Communicator world_ = mpi::Communicator::world();
  nccl::Communicator nccl_{world_, "GPU-" + std::to_string(world_.rank()),
                           std::chrono::seconds(20)};
  LazyStreams streams_;
  cuda::Stream stream_{cudaStream_t{}};
};

TEST_P(NcclExchangeTest, RowsArriveBySourceAndSlotAndComeBack) {
  const auto device = static_cast<std::size_t>(world_.rank());
  NcclExchange exchange(world_, nccl_, {1, kSlots, kLength * sizeof(BFloat16), GetParam()},
                        engine());
  EXPECT_EQ(exchange.capturable(), GetParam() == Counts::known);
  for (std::uint64_t round = 0; round < 6; ++round) {
    const LaneTraffic traffic(static_cast<std::size_t>(world_.size()), kSlots, kLength, round);
    const auto sent = traffic.sent(device);
    const auto expected = traffic.received(device);
    const auto to = traffic.rows_to(device);
    auto from = GetParam() == Counts::known ? traffic.rows_from(device)
                                            : std::vector<std::int64_t>(to.size(), -1);
    std::vector<BFloat16> received(expected.size());
    const DispatchLane lane{sent.data(),
                            to,
                            from,
                            received.data(),
                            static_cast<std::int64_t>(expected.size() / kLength),
                            &stream_};
    exchange.dispatch(std::span(&lane, 1));
    exchange.wait(stream_);
    EXPECT_EQ(from, traffic.rows_from(device));
    EXPECT_TRUE(received == expected);

    std::vector<BFloat16> returned(sent.size());
    const CombineLane back{received.data(), returned.data(), &stream_};
    exchange.combine(std::span(&back, 1));
    exchange.wait(stream_);
    EXPECT_TRUE(returned == sent);
  }
}

TEST_P(NcclExchangeTest, SeveralLanesAreRefused) {
  EXPECT_THROW(NcclExchange(world_, nccl_, {2, kSlots, 2, GetParam()}, engine()), EnvironmentError);
}

INSTANTIATE_TEST_SUITE_P(Counts, NcclExchangeTest,
                         testing::Values(Counts::known, Counts::exchanged));

using NcclMigrationTest = NcclExchangeTest;

TEST_P(NcclMigrationTest, WeightsArriveWhole) {
  constexpr std::size_t kBytes = 1003;
  NcclMigration migration(world_, nccl_, kBytes, engine(), {"this rank", std::chrono::seconds(20)});
  const auto ranks = static_cast<std::uint64_t>(world_.size());
  constexpr std::size_t kMoves = 10;
  std::vector<std::vector<std::byte>> sources(kMoves);
  std::vector<std::vector<std::byte>> targets(kMoves);
  std::vector<WeightMove> moves(kMoves);
  for (std::size_t i = 0; i < kMoves; ++i) {
    moves[i].from_device = static_cast<int>(RandomKey(1)[i][0].below(ranks));
    moves[i].to_device = static_cast<int>(RandomKey(1)[i][1].below(ranks));
    sources[i].assign(kBytes, static_cast<std::byte>(i + 1));
    targets[i].resize(kBytes);
    moves[i].source = moves[i].from_device == world_.rank() ? sources[i].data() : nullptr;
    moves[i].target = moves[i].to_device == world_.rank() ? targets[i].data() : nullptr;
  }
  const cuda::Stream* stream = &stream_;
  migration.move(moves, std::span(&stream, 1));
  streams_.run(stream_);
  for (std::size_t i = 0; i < kMoves; ++i) {
    if (moves[i].to_device == world_.rank()) {
      EXPECT_TRUE(targets[i] == sources[i]) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Migration, NcclMigrationTest, testing::Values(Counts::known));

}  // namespace
}  // namespace moevar::exchange
