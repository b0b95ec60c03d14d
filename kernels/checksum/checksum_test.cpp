#include "checksum/checksum.hpp"

#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "checksum/checksum_share.hpp"

namespace moevar::checksum {
namespace {

std::vector<BFloat16> drawn(std::size_t count, std::uint64_t seed) {
  std::vector<BFloat16> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i].bits = static_cast<std::uint16_t>(RandomKey(seed)[i].bits());
  }
  return values;
}

TEST(Checksum, IsTheSumOfMixedWordsAndPlaces) {
  const std::vector<BFloat16> values{{0x1234}, {0xABCD}, {0x00FF}};
  EXPECT_EQ(sum_cpu(values), mix(0xABCD1234ULL) + mix((1ULL << 32U) | 0x00FFULL));
  EXPECT_EQ(sum_cpu({}), 0U);
  EXPECT_EQ(sum_cpu(values, 7), mix((7ULL << 32U) | 0xABCD1234ULL) + mix((8ULL << 32U) | 0xFFULL));
}

TEST(Checksum, SeesAnyChange) {
  auto values = drawn(1000, 1);
  const auto right = sum_cpu(values);
  for (std::size_t i = 0; i < values.size(); i += 37) {
    for (unsigned bit = 0; bit < 16; ++bit) {
      values[i].bits ^= static_cast<std::uint16_t>(1U << bit);
      EXPECT_NE(sum_cpu(values), right);
      values[i].bits ^= static_cast<std::uint16_t>(1U << bit);
    }
  }
  std::swap(values[4], values[5]);  // within a word
  EXPECT_NE(sum_cpu(values), right);
  std::swap(values[4], values[5]);
  std::swap(values[10], values[200]);
  EXPECT_NE(sum_cpu(values), right);
  std::swap(values[10], values[200]);
  EXPECT_EQ(sum_cpu(values), right);
  values.push_back({});  // a zero more at an even place is a word more
  EXPECT_NE(sum_cpu(values), right);
}

TEST(Checksum, PartsAddUp) {
  const auto values = drawn(1001, 2);
  const std::span all(values);
  EXPECT_EQ(sum_cpu(all.first(400)) + sum_cpu(all.subspan(400), 200), sum_cpu(all));
}

/// What a GPU's threads do, on the host: sizes around packs, aligned and not, threads few and many.
TEST(Checksum, SharesOfThreadsAddUp) {
  const auto values = drawn(5000, 3);
  for (const std::size_t offset : {0U, 1U, 8U}) {
    for (const std::size_t count : {0U, 1U, 2U, 7U, 8U, 9U, 31U, 32U, 33U, 255U, 256U, 4097U}) {
      for (const std::size_t threads : {1U, 3U, 32U, 256U, 1024U}) {
        const auto arranged = arrange(values.data() + offset, count);
        EXPECT_EQ(arranged.pack_count, offset == 1 ? 0 : count / kValuesPerPack);
        std::uint64_t sum = 0;
        for (std::size_t thread = 0; thread < threads; ++thread) {
          sum += share_of(arranged, thread, threads);
        }
        EXPECT_EQ(sum, sum_cpu(std::span(values).subspan(offset, count)))
            << offset << ' ' << count << ' ' << threads;
      }
    }
  }
}

}  // namespace
}  // namespace moevar::checksum
