#include "exchange/mpi_exchange.hpp"

#include <limits>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"

namespace moevar::exchange {
namespace {

constexpr std::size_t kLength = 3;
constexpr std::size_t kSlots = 2;

/// Rows that `source` sends to a slot of the fleet; some are 0.
std::int64_t rows_of(std::uint64_t round, int source, std::size_t slot) {
  return static_cast<std::int64_t>(
      RandomKey(round)[static_cast<std::uint64_t>(source)][slot].below(5));
}

float value_of(int source, std::size_t slot, std::int64_t row, std::size_t column) {
  return static_cast<float>(1000 * source) + static_cast<float>(100 * slot) +
         static_cast<float>(10 * row) + static_cast<float>(column);
}

void round_trip(const mpi::Communicator& world, MpiExchange& exchange, std::uint64_t round) {
  const std::size_t slots = kSlots * static_cast<std::size_t>(world.size());
  std::vector<std::int64_t> to(slots);
  std::vector<float> rows;
  for (std::size_t slot = 0; slot < slots; ++slot) {
    to[slot] = round == 0 ? 0 : rows_of(round, world.rank(), slot);
    for (std::int64_t row = 0; row < to[slot]; ++row) {
      for (std::size_t column = 0; column < kLength; ++column) {
        rows.push_back(value_of(world.rank(), slot, row, column));
      }
    }
  }
  std::vector<std::int64_t> from(slots, -1);
  std::vector<float> received(5 * slots * kLength, -1.0F);
  const auto arrived = exchange.dispatch(rows, to, from, received);

  std::size_t next = 0;
  for (int source = 0; source < world.size(); ++source) {
    for (std::size_t s = 0; s < kSlots; ++s) {
      const std::size_t slot = static_cast<std::size_t>(world.rank()) * kSlots + s;
      const auto expected = round == 0 ? 0 : rows_of(round, source, slot);
      ASSERT_EQ(from[static_cast<std::size_t>(source) * kSlots + s], expected);
      for (std::int64_t row = 0; row < expected; ++row) {
        for (std::size_t column = 0; column < kLength; ++column) {
          ASSERT_EQ(received[next++], value_of(source, slot, row, column));
        }
      }
    }
  }
  EXPECT_EQ(static_cast<std::size_t>(arrived) * kLength, next);

  for (float& value : received) {
    value = -value;
  }
  std::vector<float> returned(rows.size());
  exchange.combine(received, returned);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(returned[i], -rows[i]);
  }
}

TEST(MpiExchange, RowsArriveBySourceAndSlotAndComeBack) {
  const auto world = mpi::Communicator::world();
  MpiExchange exchange(world, kLength, kSlots);
  for (std::uint64_t round = 0; round < 6; ++round) {
    round_trip(world, exchange, round);
  }
}

TEST(MpiExchange, TooLittleRoomIsAnError) {
  const auto world = mpi::Communicator::world();
  MpiExchange exchange(world, 1, 1);
  const std::vector<std::int64_t> to(static_cast<std::size_t>(world.size()), 2);
  std::vector<std::int64_t> from(to.size());
  const std::vector<float> rows(2 * to.size());
  std::vector<float> received(rows.size() - 1);
  EXPECT_THROW(exchange.dispatch(rows, to, from, received), CheckError);
}

TEST(MpiExchange, LayoutCountsRowsAndGuardsTheInt) {
  RowLayout layout{std::vector<int>(2), std::vector<int>(2), 0};
  lay_out(std::vector<std::int64_t>{1, 2, 0, 4}, layout);
  EXPECT_EQ(layout.count, (std::vector<int>{3, 4}));
  EXPECT_EQ(layout.begin, (std::vector<int>{0, 3}));
  EXPECT_EQ(layout.total, 7);
  const std::int64_t most = std::numeric_limits<int>::max();
  lay_out(std::vector<std::int64_t>{most - 5, 5, 0, 0}, layout);
  EXPECT_EQ(layout.total, most);
  EXPECT_THROW(lay_out(std::vector<std::int64_t>{most - 5, 5, 0, 1}, layout), EnvironmentError);
}

}  // namespace
}  // namespace moevar::exchange
