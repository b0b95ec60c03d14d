#pragma once

#include <cstdint>
#include <span>

#include "fleet/gpu_family.hpp"
#include "fleet/gpu_physics.hpp"
#include "study/study.hpp"

namespace moevar::run {

/// Rows to which a modelled grouped GEMM pads each expert's tokens ...
inline constexpr std::uint32_t kTileRows = 128;
/// ... and what it takes where all of them fit in: the least that Hopper's warp-group MMA works on.
inline constexpr std::uint32_t kSmallTileRows = 64;

/// What a device's slots hold in one layer, as far as its time goes.
struct SlotWork {
  std::uint32_t tokens = 0;
  std::uint32_t tiles = 0;   ///< of kSmallTileRows rows, each slot padded by itself
  std::uint32_t active = 0;  ///< slots with tokens

  static constexpr std::uint32_t tiles_of(std::uint32_t tokens) noexcept {
    constexpr std::uint32_t kSmallTiles = kTileRows / kSmallTileRows;
    const std::uint32_t tiles = (tokens + kTileRows - 1) / kTileRows * kSmallTiles;
    return tokens > 0 && tokens <= kSmallTileRows ? 1 : tiles;
  }

  /// Slots' tokens, added up.
  static SlotWork of(std::span<const std::uint32_t> slot_tokens) noexcept {
    SlotWork work;
    for (const std::uint32_t tokens : slot_tokens) {
      work.tokens += tokens;
      work.tiles += tiles_of(tokens);
      work.active += static_cast<std::uint32_t>(tokens != 0);
    }
    return work;
  }
};

/// A modelled device's expert time for one layer, without run noise: E7 with 6 × hidden ×
/// intermediate FLOP a padded row, and with the bytes of the weights of every slot that has work
/// (three matrices) and of every token (hidden in, hidden out, intermediate out and in), BF16.
struct ExpertCost {
  double tile_ns = 0.0;     ///< arithmetic of one small tile
  double weights_ns = 0.0;  ///< reading one expert's weights
  double token_ns = 0.0;    ///< a token's memory traffic

  /// At a clock; the GPU's fail-slow factor is in all three.
  ExpertCost(const fleet::GpuFamily& family, const fleet::GpuTraits& gpu,
             const study::ModelShape& model, double clock_mhz) noexcept;

  [[nodiscard]] double time_ns(const SlotWork& work) const noexcept {
    const double arithmetic = tile_ns * work.tiles;
    const double memory = weights_ns * work.active + token_ns * work.tokens;
    return arithmetic > memory ? arithmetic : memory;
  }
};

/// Bytes of one expert's weights, BF16.
std::int64_t expert_bytes(const study::ModelShape& model) noexcept;

}  // namespace moevar::run
