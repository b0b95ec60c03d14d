#include "exchange/staged_exchange.hpp"

#include <algorithm>
#include <array>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "exchange/mpi_exchange.hpp"
#include "host_copy_engine.hpp"
#include "lane_traffic.hpp"

namespace moevar::exchange {
namespace {

constexpr std::size_t kLength = 5;
constexpr std::size_t kSlots = 3;
constexpr BFloat16 kPoison{0x7FC0};

/// A lane's memory, as a GPU would have it.
struct Memory {
  std::vector<BFloat16> rows;
  std::vector<BFloat16> received;
  std::vector<BFloat16> results;
  std::vector<BFloat16> returned;
  std::vector<std::int64_t> to;
  std::vector<std::int64_t> from;
};

class Lanes {
 public:
  Lanes(const mpi::Communicator& world, int lanes, Counts counts)
      : world_(world),
        lanes_(static_cast<std::size_t>(lanes)),
        counts_(counts),
        exchange_(world, {lanes, static_cast<int>(kSlots), kLength * sizeof(BFloat16), counts},
                  std::make_unique<HostCopyEngine>(streams_),
                  {"this rank", std::chrono::seconds(20)}) {
    const LaneTraffic most(devices(), kSlots, kLength, 2);
    const auto rows = static_cast<std::int64_t>(most.room() * lanes_);
    exchange_.reserve(rows, rows);
  }

  /// Two layers, one behind the other without a wait in between.
  void run_two_layers(std::uint64_t round) {
    const std::array traffic{LaneTraffic(devices(), kSlots, kLength, round),
                             LaneTraffic(devices(), kSlots, kLength, round + 1)};
    std::array memory{std::vector<Memory>(lanes_), std::vector<Memory>(lanes_)};
    queue_layer(traffic[0], memory[0]);
    queue_layer(traffic[1], memory[1]);
    for (std::size_t lane = lanes_; lane-- > 0;) {
      exchange_.wait(streams_.stream(lane));
    }
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      check(memory[0][lane], traffic[0], lane);
      check(memory[1][lane], traffic[1], lane);
    }
  }

  [[nodiscard]] std::size_t devices() const {
    return lanes_ * static_cast<std::size_t>(world_.size());
  }
  [[nodiscard]] StagedExchange& exchange() { return exchange_; }

 private:
  /// Dispatch, something like experts' work, and combine.
  void queue_layer(const LaneTraffic& traffic, std::vector<Memory>& memory) {
    std::vector<DispatchLane> out;
    std::vector<CombineLane> back;
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      Memory& m = memory[lane];
      m.to = traffic.rows_to(device(lane));
      m.from = counts_ == Counts::known ? traffic.rows_from(device(lane))
                                        : std::vector<std::int64_t>(m.to.size(), -1);
      m.rows.assign(traffic.sent(device(lane)).size(), kPoison);
      m.returned.assign(m.rows.size(), kPoison);
      m.received.assign(traffic.room() * kLength, kPoison);
      m.results.assign(m.received.size(), kPoison);
      const auto& stream = streams_.stream(lane);
      out.push_back({m.rows.data(), m.to, m.from, m.received.data(),
                     static_cast<std::int64_t>(traffic.room()), &stream});
      back.push_back({m.results.data(), m.returned.data(), &stream});
      streams_.give(stream, [&m, traffic, d = device(lane)] {
        std::ranges::copy(traffic.sent(d), m.rows.begin());
      });
    }
    exchange_.dispatch(out);
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      Memory& m = memory[lane];
      streams_.give(streams_.stream(lane), [&m] {
        std::ranges::transform(m.received, m.results.begin(), &LaneTraffic::worked_on);
        std::ranges::fill(m.rows, kPoison);  // they may be written to again
      });
    }
    exchange_.combine(back);
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      // the next layer's work: nobody may still need the results
      streams_.give(streams_.stream(lane),
                    [&m = memory[lane]] { std::ranges::fill(m.results, kPoison); });
    }
  }

  [[nodiscard]] std::size_t device(std::size_t lane) const {
    return static_cast<std::size_t>(world_.rank()) * lanes_ + lane;
  }

  void check(const Memory& m, const LaneTraffic& traffic, std::size_t lane) const {
    EXPECT_EQ(m.from, traffic.rows_from(device(lane)));
    const auto expected = traffic.received(device(lane));
    ASSERT_LE(expected.size(), m.received.size());
    EXPECT_TRUE(std::ranges::equal(std::span(m.received).first(expected.size()), expected));
    EXPECT_TRUE(std::ranges::all_of(std::span(m.received).subspan(expected.size()),
                                    [](BFloat16 v) { return v == kPoison; }));
    auto back = traffic.sent(device(lane));
    std::ranges::transform(back, back.begin(), &LaneTraffic::worked_on);
    EXPECT_TRUE(m.returned == back);
  }

  const mpi::Communicator& world_;
  std::size_t lanes_;
  Counts counts_;
  LazyStreams streams_;
  StagedExchange exchange_;
};

class StagedExchangeTest : public testing::TestWithParam<std::tuple<int, Counts>> {};

TEST_P(StagedExchangeTest, RowsArriveBySourceAndSlotAndComeBack) {
  const auto world = mpi::Communicator::world();
  Lanes lanes(world, std::get<0>(GetParam()), std::get<1>(GetParam()));
  EXPECT_EQ(lanes.exchange().path(), world.size() == 1 ? "local" : "staged");
  for (std::uint64_t round = 0; round < 8; round += 2) {
    lanes.run_two_layers(round);
  }
}

INSTANTIATE_TEST_SUITE_P(Lanes, StagedExchangeTest,
                         testing::Combine(testing::Values(1, 2, 4),
                                          testing::Values(Counts::known, Counts::exchanged)));

/// The same rows as floats through exchange::MpiExchange: row by row equal, on the way and back.
TEST(StagedExchange, OneLaneDoesWhatMpiExchangeDoes) {
  const auto world = mpi::Communicator::world();
  const auto devices = static_cast<std::size_t>(world.size());
  const auto device = static_cast<std::size_t>(world.rank());
  const LaneTraffic traffic(devices, kSlots, kLength, 7);
  const auto floats = [](std::span<const BFloat16> values) {
    std::vector<float> all(values.size());
    std::ranges::transform(values, all.begin(),
                           [](BFloat16 v) { return static_cast<float>(v.bits); });
    return all;
  };
  const auto sent = traffic.sent(device);
  const auto to = traffic.rows_to(device);
  std::vector<std::int64_t> from(to.size(), -1);

  MpiExchange mpi_exchange(world, kLength, kSlots);
  std::vector<std::int64_t> mpi_from(to.size(), -1);
  std::vector<float> mpi_received(traffic.room() * kLength, -1.0F);
  const auto arrived = mpi_exchange.dispatch(floats(sent), to, mpi_from, mpi_received);

  LazyStreams streams;
  StagedExchange staged(
      world, {1, static_cast<int>(kSlots), kLength * sizeof(BFloat16), Counts::exchanged},
      std::make_unique<HostCopyEngine>(streams), {"this rank", std::chrono::seconds(20)});
  const auto room = static_cast<std::int64_t>(traffic.room());
  staged.reserve(room, room);
  std::vector<BFloat16> received(traffic.room() * kLength);
  const DispatchLane lane{sent.data(), to, from, received.data(), room, &streams.stream(0)};
  staged.dispatch(std::span(&lane, 1));
  staged.wait(streams.stream(0));
  EXPECT_EQ(from, mpi_from);
  received.resize(static_cast<std::size_t>(arrived) * kLength);
  mpi_received.resize(received.size());
  EXPECT_EQ(floats(received), mpi_received);

  std::vector<BFloat16> returned(sent.size());
  const CombineLane back{received.data(), returned.data(), &streams.stream(0)};
  staged.combine(std::span(&back, 1));
  staged.wait(streams.stream(0));
  EXPECT_TRUE(returned == sent);
}

TEST(StagedExchange, TooLittleRoomIsAnError) {
  const auto world = mpi::Communicator::world();
  LazyStreams streams;
  StagedExchange exchange(world, {1, 1, 2, Counts::exchanged},
                          std::make_unique<HostCopyEngine>(streams), {"this rank"});
  const std::vector<std::int64_t> to(static_cast<std::size_t>(world.size()), 2);
  std::vector<std::int64_t> from(to.size());
  const std::vector<BFloat16> rows(2 * to.size());
  std::vector<BFloat16> received(rows.size());
  const auto arrive = static_cast<std::int64_t>(rows.size());
  const DispatchLane small{rows.data(), to, from, received.data(), arrive - 1, &streams.stream(0)};
  EXPECT_THROW(exchange.dispatch(std::span(&small, 1)), CheckError);
  const DispatchLane enough{rows.data(), to, from, received.data(), arrive, &streams.stream(0)};
  if (world.size() > 1) {
    EXPECT_THROW(exchange.dispatch(std::span(&enough, 1)), CheckError);  // none on the host
    exchange.reserve(arrive, arrive);
  }
  EXPECT_NO_THROW(exchange.dispatch(std::span(&enough, 1)));
}

/// Rows between a rank's own lanes do not pass the host.
TEST(StagedExchange, CopiesEveryRowOnceOnItsRankAndTwiceBetweenRanks) {
  const auto world = mpi::Communicator::world();
  LazyStreams streams;
  auto owned = std::make_unique<HostCopyEngine>(streams);
  const HostCopyEngine& engine = *owned;
  StagedExchange exchange(world, {2, 1, 2, Counts::known}, std::move(owned),
                          {"this rank", std::chrono::seconds(20)});
  const auto ranks = static_cast<std::size_t>(world.size());
  const std::vector<std::int64_t> one_each(2 * ranks, 1);
  std::vector<std::int64_t> from = one_each;
  const std::vector<BFloat16> rows(2 * ranks);
  std::vector<std::vector<BFloat16>> received(2, std::vector<BFloat16>(2 * ranks));
  const auto room = static_cast<std::int64_t>(4 * ranks);
  exchange.reserve(room, room);
  std::vector<DispatchLane> lanes;
  for (std::size_t lane = 0; lane < 2; ++lane) {
    lanes.push_back(
        {rows.data(), one_each, from, received[lane].data(), room, &streams.stream(lane)});
  }
  exchange.dispatch(lanes);
  // 4 rows from lane to lane; 4 rows to and 4 from every other rank
  EXPECT_EQ(engine.copied_bytes(), 2 * (4 + 8 * (ranks - 1)));
  exchange.wait(streams.stream(0));
  exchange.wait(streams.stream(1));
}

}  // namespace
}  // namespace moevar::exchange
