#pragma once

#include <bit>
#include <cstdint>

namespace moevar {

/// A bfloat16 on the host: the upper half of a float. Device code sees the same 16 bits.
struct BFloat16 {
  std::uint16_t bits = 0;

  /// The nearest one, ties to even; a NaN stays a NaN.
  static constexpr BFloat16 from(float value) noexcept {
    const auto word = std::bit_cast<std::uint32_t>(value);
    if ((word & 0x7FFFFFFFU) > 0x7F800000U) {
      return {static_cast<std::uint16_t>((word >> 16U) | 0x40U)};
    }
    const std::uint32_t half = 0x7FFFU + ((word >> 16U) & 1U);
    return {static_cast<std::uint16_t>((word + half) >> 16U)};
  }

  [[nodiscard]] constexpr float value() const noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
  }

  bool operator==(const BFloat16&) const = default;
};

}  // namespace moevar
