#pragma once

#include <cstdint>

namespace moevar {

/// SplitMix64's output function: a bijection of 64-bit words.
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31U);
}

/// Phi^-1(u) for 0 < u < 1, relative error below 1e-15.
/// Source: Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37(3), 1988.
double normal_quantile(double u) noexcept;

/// A counter-based random number: a value is a function of what it is for and of nothing else.
///
///     RandomKey(seed)[step][layer][expert].normal()
///
/// Every [] is one more level of the key: the state is mix(state ^ id), so that draws never depend
/// on the order of calls, the size of a fleet or the number of ranks.
class RandomKey {
 public:
  constexpr explicit RandomKey(std::uint64_t seed) noexcept : state_(mix(seed)) {}

  constexpr RandomKey operator[](std::uint64_t id) const noexcept {
    RandomKey next(0);
    next.state_ = mix(state_ ^ id);
    return next;
  }

  [[nodiscard]] constexpr std::uint64_t bits() const noexcept { return state_; }

  /// In the open interval (0, 1), on the grid (k + 0.5) 2^-53.
  [[nodiscard]] constexpr double uniform() const noexcept {
    return (static_cast<double>(state_ >> 11U) + 0.5) * 0x1p-53;
  }

  /// Uniform on {0, ..., n-1}; n > 0.
  [[nodiscard]] constexpr std::uint64_t below(std::uint64_t n) const noexcept {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(state_) * n) >> 64U);
  }

  /// Standard normal.
  [[nodiscard]] double normal() const noexcept { return normal_quantile(uniform()); }

 private:
  std::uint64_t state_;
};

/// The first level of every key, below the seed: what a random number is for. One list, so that no
/// two uses share a stream. GPU draws (fleet/) use [index][parameter] directly, as reference fleets
/// do.
enum class Stream : std::uint64_t {
  plan_order = 0x706C616E,
  skew = 0x736B6577,
  expert_order = 0x65787074,
  burst = 0x62757273,
  drift = 0x64726966,
  load = 0x6C6F6164,
  token = 0x746F6B65,
  placement = 0x706C6163,
  weights = 0x77676874,
  activations = 0x61637476,
};

/// RandomKey(seed) narrowed to one use.
constexpr RandomKey random_stream(std::uint64_t seed, Stream stream) noexcept {
  return RandomKey(seed)[static_cast<std::uint64_t>(stream)];
}

}  // namespace moevar
