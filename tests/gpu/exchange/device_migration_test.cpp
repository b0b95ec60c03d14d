#include "exchange/device_migration.hpp"

#include "base/random.hpp"
#include "checksum/checksum.hpp"
#include "checksum/checksum_cuda.hpp"
#include "exchange/cuda_copy_engine.hpp"
#include "exchange/nccl_migration.hpp"
#include "gpu_lanes.hpp"

namespace moevar::exchange {
namespace {

constexpr std::size_t kWeights = std::size_t{3} * 2048 * 768 + 2;  // over two pieces and a bit
constexpr std::size_t kBytes = kWeights * sizeof(BFloat16);
constexpr std::chrono::seconds kLimit{60};

class DeviceMigrationTest : public GpuTest {
 protected:
  void set_up() override {
    gpu_ = gpu_of(world_);
    cuda::use(gpu_.ordinal);
  }

  static std::vector<BFloat16> weights(std::size_t move) {
    std::vector<BFloat16> values(kWeights);
    for (std::size_t i = 0; i < kWeights; ++i) {
      values[i].bits = static_cast<std::uint16_t>(mix(i + (move << 40U)));
    }
    return values;
  }

  /// Moves weights between made-up devices, all at once; their checksums on arrival, taken by the
  /// GPU, have to be those of the host.
  void move_and_check(DeviceMigration& migration, const LaneStreams& streams,
                      std::uint64_t round) const {
    constexpr std::size_t kMoves = 6;
    const int lanes = static_cast<int>(streams.all().size());
    const auto devices = static_cast<std::uint64_t>(world_.size() * lanes);
    const auto is_mine = [&](int device) { return device / lanes == world_.rank(); };
    const auto stream_of = [&](int device) -> const cuda::Stream& {
      return streams[static_cast<std::size_t>(device % lanes)];
    };
    std::vector<WeightMove> moves(kMoves);
    std::vector<cuda::DeviceArray<BFloat16>> memory;
    memory.reserve(2 * kMoves);
    for (std::size_t i = 0; i < kMoves; ++i) {
      auto& [from, to, source, target] = moves[i];
      from = static_cast<int>(RandomKey(round)[i][0].below(devices));
      to = static_cast<int>(RandomKey(round)[i][1].below(devices));
      if (is_mine(from)) {
        auto& array = memory.emplace_back(kWeights);
        const auto values = weights(i);
        cuda::to_device(std::span<const BFloat16>(values), array.data(), stream_of(from));
        source = array.data();
      }
      if (is_mine(to)) {
        auto& array = memory.emplace_back(kWeights);
        MOEVAR_CUDA(cudaMemsetAsync(array.data(), 0xFF, kBytes, stream_of(to).raw()));
        target = array.data();
      }
    }
    migration.move(moves, streams.all());
    const cuda::DeviceArray<std::uint64_t> sum(1);
    for (std::size_t i = 0; i < kMoves; ++i) {
      if (is_mine(moves[i].to_device)) {
        const auto& stream = stream_of(moves[i].to_device);
        std::uint64_t arrived = 0;
        checksum::sum_cuda(static_cast<const BFloat16*>(moves[i].target), kWeights, sum.data(),
                           stream);
        cuda::to_host(static_cast<const std::uint64_t*>(sum.data()), std::span(&arrived, 1),
                      stream);
        stream.synchronise();
        EXPECT_EQ(arrived, checksum::sum_cpu(weights(i))) << "move " << i;
      }
    }
    for (const auto* stream : streams.all()) {
      stream->synchronise();  // sources are sent by now
    }
  }

  mpi::Communicator world_ = mpi::Communicator::world();
  RankGpu gpu_;
};

TEST_F(DeviceMigrationTest, StagedWeightsArriveWhole) {
  for (const std::size_t lanes : {1U, 4U}) {
    const LaneStreams streams(lanes, false);
    StagedMigration migration(world_, static_cast<int>(lanes), kBytes,
                              std::make_unique<CudaCopyEngine>(), {"this rank", kLimit});
    move_and_check(migration, streams, lanes);
    move_and_check(migration, streams, lanes + 10);
  }
}

TEST_F(DeviceMigrationTest, WeightsArriveWholeOverNccl) {
  if (const auto why = why_no_nccl(world_, gpu_)) {
    GTEST_SKIP() << *why;
  }
  const LaneStreams streams(1, false);
  nccl::Communicator nccl(world_, gpu_.uuid, kLimit);
  NcclMigration migration(world_, nccl, kBytes, std::make_unique<CudaCopyEngine>(),
                          {"this rank", kLimit});
  move_and_check(migration, streams, 3);
  move_and_check(migration, streams, 4);
}

}  // namespace
}  // namespace moevar::exchange
