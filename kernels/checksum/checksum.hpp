#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bfloat16.hpp"
#include "base/random.hpp"

/// A 64-bit checksum of bfloat16 weights that any number of threads may take in any order, on a
/// host and on a GPU alike: the sum, modulo 2^64, of words mixed with their places. Another value
/// anywhere, or two words that changed places, give another sum.
namespace moevar::checksum {

/// What a word adds. Word w holds the values 2 w, in its lower half, and 2 w + 1; a last one
/// without a second value has zeros there. Places below 2^32: up to 16 GiB of weights.
constexpr std::uint64_t of_word(std::uint64_t place, std::uint32_t word) noexcept {
  return mix((place << 32U) | word);
}
constexpr std::uint32_t word_of(BFloat16 low, BFloat16 high) noexcept {
  return (static_cast<std::uint32_t>(high.bits) << 16U) | low.bits;
}

/// The sum over `values`, which begin at the word `first_word` of the whole: the sums of parts with
/// even numbers of values add up.
std::uint64_t sum_cpu(std::span<const BFloat16> values, std::uint64_t first_word = 0) noexcept;

}  // namespace moevar::checksum
