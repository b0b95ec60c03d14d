#include <algorithm>

#include "exchange/cuda_copy_engine.hpp"
#include "exchange/nccl_exchange.hpp"
#include "exchange/staged_exchange.hpp"
#include "gpu_lanes.hpp"
#include "lane_traffic.hpp"

namespace moevar::exchange {
namespace {

constexpr std::size_t kSlots = 3;
constexpr std::chrono::seconds kLimit{30};
constexpr int kPoison = 0xFF;  // every bfloat16 of these bytes is a NaN

using Rows = std::vector<BFloat16>;

/// A lane's memory on the GPU.
struct DeviceMemory {
  explicit DeviceMemory(std::size_t values) : rows(values), received(values), returned(values) {}
  cuda::DeviceArray<BFloat16> rows, received, returned;
  std::vector<std::int64_t> to, from;
};

class DeviceExchangeTest : public GpuTest {
 protected:
  void set_up() override {
    gpu_ = gpu_of(world_);
    cuda::use(gpu_.ordinal);
  }

  [[nodiscard]] LaneTraffic traffic(std::size_t lanes, std::size_t length,
                                    std::uint64_t round) const {
    return {lanes * static_cast<std::size_t>(world_.size()), kSlots, length, round};
  }
  static ExchangeShape shape(std::size_t lanes, std::size_t length, Counts counts) {
    return {static_cast<int>(lanes), static_cast<int>(kSlots), length * sizeof(BFloat16), counts};
  }
  [[nodiscard]] std::unique_ptr<DeviceExchange> staged(std::size_t lanes, std::size_t length,
                                                       Counts counts) const {
    return std::make_unique<StagedExchange>(world_, shape(lanes, length, counts),
                                            std::make_unique<CudaCopyEngine>(),
                                            Patience{"this rank", kLimit});
  }

  /// Rows out and back; what arrived on the lanes, and what came back to them.
  static std::vector<Rows> round_trip(DeviceExchange& exchange, const LaneTraffic& traffic,
                                      const LaneStreams& streams, std::size_t first_device,
                                      Counts counts, std::size_t length) {
    const std::size_t lanes = streams.all().size();
    const std::size_t values = traffic.room() * length;
    std::vector<DeviceMemory> memory;
    std::vector<Rows> sent;
    std::vector<DispatchLane> out;
    std::vector<CombineLane> back;
    memory.reserve(lanes);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      auto& m = memory.emplace_back(values);
      m.to = traffic.rows_to(first_device + lane);
      m.from = counts == Counts::known ? traffic.rows_from(first_device + lane)
                                       : std::vector<std::int64_t>(m.to.size(), -1);
      sent.push_back(traffic.sent(first_device + lane));
      for (auto* array : {&m.received, &m.returned}) {
        MOEVAR_CUDA(cudaMemsetAsync(array->data(), kPoison, array->bytes(), streams[lane].raw()));
      }
      cuda::to_device(std::span<const BFloat16>(sent.back()), m.rows.data(), streams[lane]);
      out.push_back({m.rows.data(), m.to, m.from, m.received.data(),
                     static_cast<std::int64_t>(traffic.room()), streams.all()[lane]});
      back.push_back({m.received.data(), m.returned.data(), streams.all()[lane]});
    }
    exchange.dispatch(out);
    exchange.combine(back);
    std::vector<Rows> results;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      EXPECT_EQ(memory[lane].from, traffic.rows_from(first_device + lane));
      for (const auto* array : {&memory[lane].received, &memory[lane].returned}) {
        auto& host = results.emplace_back(values);
        cuda::to_host(static_cast<const BFloat16*>(array->data()), std::span(host), streams[lane]);
      }
    }
    for (const auto* stream : streams.all()) {
      exchange.wait(*stream);
    }
    return results;
  }

  void check(const std::vector<Rows>& results, const LaneTraffic& traffic,
             std::size_t first_device) const {
    for (std::size_t i = 0; i < results.size(); ++i) {
      const std::size_t device = first_device + i / 2;
      const auto expected = i % 2 == 0 ? traffic.received(device) : traffic.sent(device);
      const auto [rows, rest] = std::pair(std::span(results[i]).first(expected.size()),
                                          std::span(results[i]).subspan(expected.size()));
      EXPECT_TRUE(std::ranges::equal(rows, expected)) << "device " << device;
      EXPECT_TRUE(std::ranges::all_of(rest, [](BFloat16 v) { return v.bits == 0xFFFF; }));
    }
  }

  void run(std::size_t lanes, bool parts, std::size_t length, Counts counts) {
    const LaneStreams streams(lanes, parts);
    const auto exchange = staged(lanes, length, counts);
    const auto first = static_cast<std::size_t>(world_.rank()) * lanes;
    const auto room = static_cast<std::int64_t>(lanes * traffic(lanes, length, 0).room());
    exchange->reserve(room, room);
    for (std::uint64_t round = 0; round < 5; ++round) {
      const auto rows = traffic(lanes, length, round);
      check(round_trip(*exchange, rows, streams, first, counts, length), rows, first);
    }
  }

  mpi::Communicator world_ = mpi::Communicator::world();
  RankGpu gpu_;
};

TEST_F(DeviceExchangeTest, StagedRowsArriveAndComeBack) {
  for (const std::size_t lanes : {1U, 2U, 4U}) {
    run(lanes, false, 2048, Counts::known);
    run(lanes, false, 7, Counts::exchanged);  // rows of 14 bytes
  }
}

TEST_F(DeviceExchangeTest, PartsOfAGpuExchangeRows) {
  for (const std::size_t lanes : {2U, 4U}) {
    run(lanes, true, 2048, Counts::known);
  }
}

TEST_F(DeviceExchangeTest, NcclEqualsStaged) {
  if (const auto why = why_no_nccl(world_, gpu_)) {
    GTEST_SKIP() << *why;
  }
  constexpr std::size_t kLength = 1024;
  const LaneStreams streams(1, false);
  const auto first = static_cast<std::size_t>(world_.rank());
  nccl::Communicator nccl(world_, gpu_.uuid, kLimit);
  for (const auto counts : {Counts::known, Counts::exchanged}) {
    NcclExchange over_nccl(world_, nccl, shape(1, kLength, counts),
                           std::make_unique<CudaCopyEngine>());
    const auto over_mpi = staged(1, kLength, counts);
    const auto room = static_cast<std::int64_t>(traffic(1, kLength, 0).room());
    over_mpi->reserve(room, room);
    for (std::uint64_t round = 0; round < 5; ++round) {
      const auto rows = traffic(1, kLength, round);
      const auto a = round_trip(over_nccl, rows, streams, first, counts, kLength);
      const auto b = round_trip(*over_mpi, rows, streams, first, counts, kLength);
      check(a, rows, first);
      EXPECT_TRUE(a == b);
    }
  }
}

TEST_F(DeviceExchangeTest, CanBePartOfAGraphWhereItOnlyQueues) {
  const auto why = why_no_nccl(world_, gpu_);
  if (world_.size() > 1 && why) {
    GTEST_SKIP() << "the staged exchange waits for other ranks, and for NCCL: " << *why;
  }
  constexpr std::size_t kLength = 64;
  const auto rows = traffic(1, kLength, 3);
  const auto device = static_cast<std::size_t>(world_.rank());
  const cuda::Stream stream;
  std::optional<nccl::Communicator> nccl;
  std::unique_ptr<DeviceExchange> exchange;
  if (world_.size() > 1) {
    nccl.emplace(world_, gpu_.uuid, kLimit);
    exchange = std::make_unique<NcclExchange>(world_, *nccl, shape(1, kLength, Counts::known),
                                              std::make_unique<CudaCopyEngine>());
  } else {
    exchange = staged(1, kLength, Counts::known);
  }
  ASSERT_TRUE(exchange->capturable());
  const auto to = rows.rows_to(device);
  auto from = rows.rows_from(device);
  auto sent = rows.sent(device);
  const DeviceMemory m(rows.room() * kLength);
  const DispatchLane out{
      m.rows.data(), to, from, m.received.data(), static_cast<std::int64_t>(rows.room()), &stream};
  const CombineLane back{m.received.data(), m.returned.data(), &stream};
  const auto queue = [&] {
    exchange->dispatch(std::span(&out, 1));
    exchange->combine(std::span(&back, 1));
  };
  queue();  // NCCL connects ranks when they first talk
  exchange->wait(stream);
  const auto graph = cuda::Graph::of(stream, queue);
  for (int round = 0; round < 3; ++round) {
    std::ranges::transform(sent, sent.begin(), &LaneTraffic::worked_on);
    cuda::to_device(std::span<const BFloat16>(sent), m.rows.data(), stream);
    graph.launch(stream);
    Rows returned(sent.size());
    cuda::to_host(static_cast<const BFloat16*>(m.returned.data()), std::span(returned), stream);
    exchange->wait(stream);
    EXPECT_TRUE(returned == sent);
  }
}

}  // namespace
}  // namespace moevar::exchange
