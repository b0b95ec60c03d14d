#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "emulated_grid.hpp"
#include "token_exchange/token_exchange.hpp"
#include "token_exchange/token_exchange_device.cuh"

/// The GPU's kernels, whole, on a grid of the host's threads.
namespace moevar::token_exchange {
namespace {

using emulated::launch;

constexpr std::uint32_t kUnset = 0xFFFFFFFFU;

unsigned blocks_for(std::size_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

/// Every second row goes to one slot.
std::vector<std::int32_t> random_slots(std::uint32_t rows, std::uint32_t slots) {
  std::vector<std::int32_t> all(rows);
  for (std::uint32_t i = 0; i < rows; ++i) {
    all[i] = static_cast<std::int32_t>(i % 2 == 0 ? slots / 2 : RandomKey(1)[rows][i].below(slots));
  }
  return all;
}

Permutation plan_on_cpu(const std::vector<std::int32_t>& slot_of_row, std::uint32_t slots) {
  Permutation expected(slot_of_row.size(), slots);
  plan(slot_of_row, expected);
  return expected;
}

struct Size {
  std::uint32_t rows, slots;
};

TEST(TokenExchangeEmulated, OneBlockPlansAsTheCpu) {
  for (const Size& size : {Size{0, 3}, Size{33, 12}, Size{1025, 1}, Size{kPlanMostRows - 1, 128},
                           Size{2049, kPlanMostSlots}}) {
    const auto slots = random_slots(size.rows, size.slots);
    const auto expected = plan_on_cpu(slots, size.slots);
    std::vector<std::uint32_t> place(size.rows, kUnset);
    std::vector<std::int64_t> rows_per_slot(size.slots, -1);
    launch(1, kPlanThreads, [&] {
      plan_by_one_block(slots.data(), size.rows, size.slots, place.data(), rows_per_slot.data());
    });
    EXPECT_EQ(place, expected.place) << size.rows << " " << size.slots;
    EXPECT_EQ(rows_per_slot, expected.rows_per_slot) << size.rows << " " << size.slots;
  }
}

/// The kernels before and after the sort, which is the library's.
TEST(TokenExchangeEmulated, SortedRowsMakeAPlan) {
  for (const Size& size : {Size{0, 3}, Size{1, 1}, Size{300, 7}, Size{200, 600}}) {
    const auto slots = random_slots(size.rows, size.slots);
    const auto expected = plan_on_cpu(slots, size.slots);
    std::vector<std::uint32_t> sorted_row(size.rows, kUnset);
    launch(blocks_for(size.rows), kThreads, [&] { count_up(sorted_row.data(), size.rows); });
    std::ranges::stable_sort(sorted_row, {}, [&](std::uint32_t row) { return slots[row]; });
    std::vector<std::uint32_t> sorted_slot(size.rows);
    std::ranges::transform(sorted_row, sorted_slot.begin(), [&](std::uint32_t row) {
      return static_cast<std::uint32_t>(slots[row]);
    });
    std::vector<std::uint32_t> place(size.rows, kUnset);
    std::vector<std::int64_t> rows_per_slot(size.slots, -1);
    launch(blocks_for(std::max(size.rows, size.slots)), kThreads, [&] {
      finish_plan(sorted_slot.data(), sorted_row.data(), size.rows, size.slots, place.data(),
                  rows_per_slot.data());
    });
    EXPECT_EQ(place, expected.place) << size.rows << " " << size.slots;
    EXPECT_EQ(rows_per_slot, expected.rows_per_slot) << size.rows << " " << size.slots;
  }
}

/// More pieces than one round of the scan takes, and fewer.
TEST(TokenExchangeEmulated, ArrivedRowsGoWhereGroupPutsThem) {
  struct Shape {
    std::uint32_t sources, slots;
  };
  for (const Shape& s : {Shape{1, 1}, Shape{2, 3}, Shape{8, 32}, Shape{3, 300}, Shape{17, 16}}) {
    std::vector<std::int64_t> counts(std::size_t{s.sources} * s.slots);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      counts[i] = static_cast<std::int64_t>(RandomKey(2)[s.sources][i].below(3));
    }
    counts[counts.size() / 2] = 100;  // a hot expert
    const auto rows =
        static_cast<std::uint32_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    std::vector<float> from(rows);
    std::iota(from.begin(), from.end(), 0.0F);
    std::vector<float> expected(rows);
    std::vector<std::int64_t> next(s.slots);
    group_cpu(1, counts, next, from, expected);
    std::vector<std::int64_t> sums(s.slots);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      sums[i % s.slots] += counts[i];
    }

    std::vector<std::int64_t> arrived(counts.size(), -1);
    std::vector<std::int64_t> grouped(counts.size(), -1);
    std::vector<std::int64_t> rows_per_slot(s.slots, -1);
    std::vector<std::uint32_t> place(rows, kUnset);
    launch(1, kScanThreads, [&] {
      find_pieces(counts.data(), s.sources, s.slots, arrived.data(), grouped.data(),
                  rows_per_slot.data());
    });
    launch(blocks_for(rows), kThreads, [&] {
      place_arrived(arrived.data(), grouped.data(), s.sources * s.slots, rows, place.data());
    });
    std::vector<float> to(rows, -1.0F);
    for (std::uint32_t row = 0; row < rows; ++row) {
      ASSERT_LT(place[row], rows);
      to[place[row]] = from[row];
    }
    EXPECT_EQ(to, expected) << s.sources << " " << s.slots;
    EXPECT_EQ(rows_per_slot, sums) << s.sources << " " << s.slots;
  }
}

/// The grid's last block has warps without a task.
TEST(TokenExchangeEmulated, RowsGoOutAndComeBack) {
  constexpr std::uint32_t kVectors = 257;
  constexpr std::uint32_t kTokens = 3;
  constexpr std::uint32_t kTopK = 5;
  const auto permutation = plan_on_cpu(random_slots(kTokens * kTopK, 4), 4);
  std::vector<Words<4>> x(std::size_t{kTokens} * kVectors);
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t w = 0; w < 4; ++w) {  // two bf16 numbers from 1 to 2
      x[i].word[w] =
          0x3F803F80U | (static_cast<std::uint32_t>(RandomKey(3)[i][w].bits()) & 0x7F007FU);
    }
  }
  std::vector<Words<4>> rows(x.size() * kTopK);
  std::vector<Words<4>> back(rows.size());
  std::vector<Words<4>> sum(x.size());
  const std::uint32_t parts = parts_per_row(kVectors, kCopyUnroll);
  launch(blocks_for(std::size_t{kTokens} * parts * kLanes), kThreads, [&] {
    scatter<4>(kTokens * parts, parts, kVectors, kTopK, permutation.place.data(), x.data(),
               rows.data());
  });
  launch(blocks_for(std::size_t{kTokens} * kTopK * parts * kLanes), kThreads, [&] {
    gather<4>(kTokens * kTopK * parts, parts, kVectors, permutation.place.data(), rows.data(),
              back.data());
  });
  const std::vector<float> weights(std::size_t{kTokens} * kTopK, 0.2F);
  const std::uint32_t sum_parts = parts_per_row(kVectors, kSumUnroll);
  launch(blocks_for(std::size_t{kTokens} * sum_parts * kLanes), kThreads, [&] {
    weighted_sum<4>(kTokens * sum_parts, sum_parts, kVectors, kTopK, permutation.place.data(),
                    weights.data(), rows.data(), sum.data());
  });
  for (std::size_t i = 0; i < back.size(); ++i) {
    ASSERT_EQ(back[i].word, x[i / kVectors / kTopK * kVectors + i % kVectors].word) << i;
  }
  for (std::size_t i = 0; i < sum.size(); ++i) {  // five fifths, rounded to the bf16 it came from
    ASSERT_EQ(sum[i].word, x[i].word) << i;
  }
}

}  // namespace
}  // namespace moevar::token_exchange
