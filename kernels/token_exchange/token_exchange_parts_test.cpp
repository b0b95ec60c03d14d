#include "token_exchange/token_exchange_parts.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "token_exchange/token_exchange.hpp"

/// The GPU kernels' inner functions, driven through all lanes of all warps by the host, against the
/// CPU version.
namespace moevar::token_exchange {
namespace {

constexpr BFloat16 kPoison{0x7FC0};  ///< a NaN

struct Case {
  std::size_t hidden, tokens, top_k, slots;
};
/// Rows that are shorter than a warp's part, fill it, and run over it by a little.
const std::vector<Case> kCases = {{2, 1, 1, 1},     {2, 0, 2, 3},     {16, 5, 4, 7},
                                  {264, 9, 8, 16},  {1024, 4, 2, 4},  {1032, 7, 3, 5},
                                  {2050, 3, 6, 64}, {2052, 5, 5, 2},  {7168, 2, 8, 256},
                                  {514, 33, 9, 12}, {2880, 6, 4, 32}, {510, 4, 1, 3}};

std::vector<BFloat16> random_rows(std::uint64_t key, std::size_t values) {
  std::vector<BFloat16> all(values);
  for (std::size_t i = 0; i < values; ++i) {
    all[i] = BFloat16::from(static_cast<float>(RandomKey(key)[i].normal()));
  }
  return all;
}

std::vector<float> floats(const std::vector<BFloat16>& values) {
  std::vector<float> all(values.size());
  std::ranges::transform(values, all.begin(), [](BFloat16 v) { return v.value(); });
  return all;
}

template <std::uint32_t kWords>
std::vector<Words<kWords>> as_words(const std::vector<BFloat16>& values) {
  std::vector<Words<kWords>> all(values.size() / (2 * kWords));
  if (!values.empty()) {
    std::memcpy(all.data(), values.data(), values.size() * sizeof(BFloat16));
  }
  return all;
}

template <std::uint32_t kWords>
std::vector<BFloat16> as_values(const std::vector<Words<kWords>>& words) {
  std::vector<BFloat16> all(words.size() * 2 * kWords);
  if (!words.empty()) {
    std::memcpy(static_cast<void*>(all.data()), words.data(), all.size() * sizeof(BFloat16));
  }
  return all;
}

/// Calls lane(row, first vector) as the kernels' threads do.
template <class Lane>
void for_each_lane(std::size_t rows, std::uint32_t vectors, std::uint32_t unroll,
                   const Lane& lane) {
  const std::uint32_t parts = parts_per_row(vectors, unroll);
  for (std::uint32_t task = 0; task < rows * parts; ++task) {
    const Part part = part_of(task, parts, unroll);
    for (std::uint32_t l = 0; l < kLanes; ++l) {
      lane(part.row, part.first + l);
    }
  }
}

Permutation random_plan(const Case& c, std::uint64_t key) {
  std::vector<std::int32_t> slots(c.tokens * c.top_k);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots[i] = static_cast<std::int32_t>(RandomKey(key)[i].below(c.slots));
  }
  Permutation permutation(slots.size(), c.slots);
  plan(slots, permutation);
  return permutation;
}

template <std::uint32_t kWords>
void check_scatter_and_gather(const Case& c) {
  SCOPED_TRACE(testing::Message() << c.hidden << " x " << c.tokens << ", words " << kWords);
  const auto vectors = static_cast<std::uint32_t>(c.hidden / (2 * kWords));
  const auto permutation = random_plan(c, 1);
  const auto x = random_rows(2, c.tokens * c.hidden);
  const std::size_t rows = c.tokens * c.top_k;
  std::vector<float> expected(rows * c.hidden);
  permute_cpu(c.hidden, c.top_k, permutation, floats(x), expected);

  const auto from = as_words<kWords>(x);
  auto to = as_words<kWords>(std::vector<BFloat16>(rows * c.hidden, kPoison));
  for_each_lane(c.tokens, vectors, kCopyUnroll, [&](std::uint32_t token, std::uint32_t first) {
    scatter_lane(vectors, static_cast<std::uint32_t>(c.top_k), permutation.place.data(),
                 from.data(), to.data(), token, first);
  });
  EXPECT_EQ(floats(as_values(to)), expected);

  auto back = as_words<kWords>(std::vector<BFloat16>(rows * c.hidden, kPoison));
  for_each_lane(rows, vectors, kCopyUnroll, [&](std::uint32_t row, std::uint32_t first) {
    gather_lane(vectors, permutation.place.data(), to.data(), back.data(), row, first);
  });
  const auto rows_back = as_values(back);
  for (std::size_t i = 0; i < rows_back.size(); ++i) {
    const std::size_t token = i / c.hidden / c.top_k;
    ASSERT_EQ(rows_back[i], x[token * c.hidden + i % c.hidden]) << i;
  }
}

template <std::uint32_t kWords>
void check_sum(const Case& c) {
  SCOPED_TRACE(testing::Message() << c.hidden << " x " << c.tokens << ", words " << kWords);
  const auto vectors = static_cast<std::uint32_t>(c.hidden / (2 * kWords));
  const auto permutation = random_plan(c, 3);
  const auto rows = random_rows(4, c.tokens * c.top_k * c.hidden);
  const auto weights = floats(random_rows(5, c.tokens * c.top_k));
  std::vector<float> expected(c.tokens * c.hidden);
  unpermute_cpu(c.hidden, c.top_k, permutation, floats(rows), weights, expected);

  const auto from = as_words<kWords>(rows);
  auto to = as_words<kWords>(std::vector<BFloat16>(c.tokens * c.hidden, kPoison));
  for_each_lane(c.tokens, vectors, kSumUnroll, [&](std::uint32_t token, std::uint32_t first) {
    sum_lane(vectors, static_cast<std::uint32_t>(c.top_k), permutation.place.data(), weights.data(),
             from.data(), to.data(), token, first);
  });
  const auto y = as_values(to);
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_EQ(y[i], BFloat16::from(expected[i])) << i;  // the same order, so the same roundings
  }
}

/// Every width of vectors that the row allows.
template <class Check>
void for_each_width(const Case& c, const Check& check) {
  check(std::integral_constant<std::uint32_t, 1>{});
  if (c.hidden % 4 == 0) {
    check(std::integral_constant<std::uint32_t, 2>{});
  }
  if (c.hidden % 8 == 0) {
    check(std::integral_constant<std::uint32_t, 4>{});
  }
}

TEST(TokenExchangeParts, ScatterIsPermuteAndGatherUndoesIt) {
  for (const Case& c : kCases) {
    for_each_width(c, [&](auto words) { check_scatter_and_gather<decltype(words)::value>(c); });
  }
}

TEST(TokenExchangeParts, SumIsUnpermuteToTheBit) {
  for (const Case& c : kCases) {
    for_each_width(c, [&](auto words) { check_sum<decltype(words)::value>(c); });
  }
}

TEST(TokenExchangeParts, VectorsAreAsWideAsRowsAndAddressesAllow) {
  EXPECT_EQ(words_per_vector(7168, 0), 4U);
  EXPECT_EQ(words_per_vector(7168, 8), 2U);
  EXPECT_EQ(words_per_vector(7168, 4 | 16), 1U);
  EXPECT_EQ(words_per_vector(7168, 2), 0U);
  EXPECT_EQ(words_per_vector(12, 0), 2U);
  EXPECT_EQ(words_per_vector(2, 0), 1U);
  EXPECT_EQ(words_per_vector(7, 0), 0U);
  EXPECT_EQ(words_per_vector(0, 0), 0U);
}

TEST(TokenExchangeParts, CountsOfSortedSlots) {
  for (const std::uint32_t rows : {0U, 1U, 2U, 31U, 100U}) {
    std::vector<std::uint32_t> sorted(rows);
    for (std::uint32_t i = 0; i < rows; ++i) {
      sorted[i] = static_cast<std::uint32_t>(RandomKey(6)[rows][i].below(9));
    }
    std::ranges::sort(sorted);
    for (std::uint32_t slot = 0; slot < 11; ++slot) {
      EXPECT_EQ(count_below(sorted.data(), rows, slot),
                std::ranges::count_if(sorted, [&](auto s) { return s < slot; }));
    }
  }
}

/// The place of each arrived row is where group_cpu puts it, with empty pieces at all ends.
TEST(TokenExchangeParts, PlaceOfArrivedIsWhereGroupPutsIt) {
  for (const std::size_t sources : {1U, 2U, 7U}) {
    for (const std::size_t slots : {1U, 3U, 8U}) {
      const std::size_t pieces = sources * slots;
      std::vector<std::int64_t> counts(pieces);
      std::vector<std::int64_t> arrived(pieces);
      std::vector<std::int64_t> grouped(pieces);
      for (std::size_t i = 0; i < pieces; ++i) {
        counts[i] = static_cast<std::int64_t>(RandomKey(7)[sources][slots][i].below(3));
      }
      std::exclusive_scan(counts.begin(), counts.end(), arrived.begin(), std::int64_t{0});
      std::int64_t begin = 0;
      for (std::size_t i = 0; i < pieces; ++i) {
        const std::size_t by_slot = i % sources * slots + i / sources;
        grouped[by_slot] = begin;
        begin += counts[by_slot];
      }
      std::vector<float> from(static_cast<std::size_t>(begin));
      std::iota(from.begin(), from.end(), 0.0F);
      std::vector<float> expected(from.size());
      std::vector<std::int64_t> next(slots);
      group_cpu(1, counts, next, from, expected);
      std::vector<float> to(from.size(), -1.0F);
      for (std::uint32_t row = 0; row < from.size(); ++row) {
        to[place_of_arrived(row, arrived.data(), grouped.data(),
                            static_cast<std::uint32_t>(pieces))] = from[row];
      }
      EXPECT_EQ(to, expected) << sources << " " << slots;
    }
  }
}

}  // namespace
}  // namespace moevar::token_exchange
