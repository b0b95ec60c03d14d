#pragma once

#include <array>

#include "checksum/checksum.hpp"

/// What one thread of a GPU does; a host can do it as well.
namespace moevar::checksum {

/// 16 bytes that are read at once.
struct alignas(16) Pack {
  std::array<std::uint32_t, 4> words;
};
constexpr std::size_t kValuesPerPack = 8;
/// Packs that a thread reads before it uses the first.
constexpr std::size_t kPacksAtOnce = 4;

constexpr std::uint64_t of_pack(std::uint64_t pack, const Pack& words) noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    sum += of_word(4 * pack + i, words.words[i]);
  }
  return sum;
}

/// Values as packs, and those that are left over: all of them where the memory is not aligned.
struct Values {
  const Pack* packs = nullptr;
  std::size_t pack_count = 0;
  const BFloat16* all = nullptr;
  std::size_t count = 0;
};

inline Values arrange(const BFloat16* values, std::size_t count) noexcept {
  const bool aligned = reinterpret_cast<std::uintptr_t>(values) % sizeof(Pack) == 0;
  return {reinterpret_cast<const Pack*>(values), aligned ? count / kValuesPerPack : 0, values,
          count};
}

/// The share of thread `thread` of `threads`; the shares of all of them are the checksum.
constexpr std::uint64_t share_of(const Values& values, std::size_t thread,
                                 std::size_t threads) noexcept {
  std::uint64_t sum = 0;
  std::size_t pack = thread;
  for (; pack + (kPacksAtOnce - 1) * threads < values.pack_count; pack += kPacksAtOnce * threads) {
    std::array<Pack, kPacksAtOnce> read{};
    for (std::size_t i = 0; i < kPacksAtOnce; ++i) {
      read[i] = values.packs[pack + i * threads];
    }
    for (std::size_t i = 0; i < kPacksAtOnce; ++i) {
      sum += of_pack(pack + i * threads, read[i]);
    }
  }
  for (; pack < values.pack_count; pack += threads) {
    const Pack read = values.packs[pack];
    sum += of_pack(pack, read);
  }
  const std::size_t words = (values.count + 1) / 2;
  for (std::size_t word = 4 * values.pack_count + thread; word < words; word += threads) {
    const bool whole = 2 * word + 1 < values.count;
    sum +=
        of_word(word, word_of(values.all[2 * word], whole ? values.all[2 * word + 1] : BFloat16{}));
  }
  return sum;
}

}  // namespace moevar::checksum
