#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/host_device.hpp"

/// What one lane of a token's warp does in gating_cuda.cu. The functions read nothing of their
/// thread, so that the host can drive all lanes of a warp in a test.
namespace moevar::gating {

inline constexpr std::uint32_t kLanes = 32;
inline constexpr std::uint32_t kNoExpert = 0xFFFFFFFFU;

/// An integer for a score: the greater for the greater score, the same for equal ones (0 and -0 are
/// equal), never 0. A NaN has a place too: beyond the infinity of its sign.
MOEVAR_HOST_DEVICE constexpr std::uint32_t key_of(float score) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);  // -0 becomes 0
  const std::uint32_t key = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return key != 0 ? key : 1U;
}

/// The score of a key.
MOEVAR_HOST_DEVICE constexpr float score_of(std::uint32_t key) noexcept {
  return std::bit_cast<float>((key & 0x80000000U) != 0 ? key & 0x7FFFFFFFU : ~key);
}

struct Candidate {
  std::uint32_t key = 0;  ///< 0: none is left
  std::uint32_t expert = kNoExpert;
};

/// The scores of a token that one lane holds: of the experts lane, lane + 32, ..., at most kHeld.
template <std::uint32_t kHeld>
class LaneScores {
 public:
  /// `scores` is the token's row of `experts` scores.
  MOEVAR_HOST_DEVICE LaneScores(const float* scores, std::uint32_t experts, std::uint32_t lane)
      : lane_(lane) {
    MOEVAR_UNROLL
    for (std::uint32_t i = 0; i < kHeld; ++i) {
      const std::uint32_t expert = lane + i * kLanes;
      keys_[i] = expert < experts ? key_of(scores[expert]) : 0;
    }
  }

  /// The best expert that is left here; of equal ones the lowest.
  [[nodiscard]] MOEVAR_HOST_DEVICE Candidate best() const {
    Candidate best;
    MOEVAR_UNROLL
    for (std::uint32_t i = 0; i < kHeld; ++i) {
      if (keys_[i] > best.key) {
        best = {keys_[i], lane_ + i * kLanes};
      }
    }
    return best;
  }

  /// Takes an expert out, which another lane may hold.
  MOEVAR_HOST_DEVICE void remove(std::uint32_t expert) {
    MOEVAR_UNROLL
    for (std::uint32_t i = 0; i < kHeld; ++i) {
      keys_[i] = expert == lane_ + i * kLanes ? 0 : keys_[i];
    }
  }

 private:
  std::uint32_t lane_;
  std::array<std::uint32_t, kHeld> keys_{};
};

/// Scores that a lane has to hold for so many experts: a power of two from 1 to 16.
constexpr std::uint32_t held_for(std::size_t experts) noexcept {
  return std::bit_ceil(static_cast<std::uint32_t>((experts + kLanes - 1) / kLanes));
}

}  // namespace moevar::gating
