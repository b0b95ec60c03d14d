#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "base/host_device.hpp"

/// What one lane of a warp does in the kernels of token_exchange_cuda.cu. A row of bf16 values is
/// seen as vectors of 4, 2 or 1 words, two values a word; a warp's part of a row is kUnroll times
/// 32 vectors, of which a lane has every 32nd, from `first` on. The functions read nothing of their
/// thread, so that the host can drive them through the lanes of all warps.
namespace moevar::token_exchange {

inline constexpr std::uint32_t kLanes = 32;

/// Loaded and stored at once.
template <std::uint32_t kWords>
struct alignas(4 * kWords) Words {
  std::array<std::uint32_t, kWords> word;
};

/// Words of the widest vectors that rows of `hidden` values allow whose arrays' addresses are or-ed
/// together in `addresses`; 0: none.
constexpr std::uint32_t words_per_vector(std::size_t hidden, std::uintptr_t addresses) noexcept {
  const std::uintptr_t ends = 2 * hidden | addresses;
  if (hidden == 0 || ends % 4 != 0) {
    return 0;
  }
  return ends % 16 == 0 ? 4 : ends % 8 == 0 ? 2 : 1;
}

/// Vectors of a row that one warp takes: as many loads in flight as hide the memory's latency.
inline constexpr std::uint32_t kCopyUnroll = 4;
inline constexpr std::uint32_t kSumUnroll = 2;
inline constexpr std::uint32_t kSumRows = 4;  ///< rows in flight, times kSumUnroll

/// A warp's task: a part of a row or token.
struct Part {
  std::uint32_t row;
  std::uint32_t first;  ///< lane 0's first vector
};

constexpr std::uint32_t parts_per_row(std::uint32_t vectors, std::uint32_t unroll) noexcept {
  return (vectors + kLanes * unroll - 1) / (kLanes * unroll);
}

MOEVAR_HOST_DEVICE constexpr Part part_of(std::uint32_t task, std::uint32_t parts,
                                          std::uint32_t unroll) noexcept {
  return {task / parts, task % parts * kLanes * unroll};
}

/// Token `token`'s lane of x → its top_k places in `rows`. group is the same with top_k 1.
template <std::uint32_t kWords>
MOEVAR_HOST_DEVICE inline void scatter_lane(std::uint32_t vectors, std::uint32_t top_k,
                                            const std::uint32_t* __restrict__ place,
                                            const Words<kWords>* __restrict__ x,
                                            Words<kWords>* __restrict__ rows, std::uint32_t token,
                                            std::uint32_t first) {
  std::array<Words<kWords>, kCopyUnroll> held;
  const Words<kWords>* const from = x + std::size_t{token} * vectors;
  MOEVAR_UNROLL
  for (std::uint32_t u = 0; u < kCopyUnroll; ++u) {
    if (const std::uint32_t v = first + u * kLanes; v < vectors) {
      held[u] = from[v];
    }
  }
  const std::uint32_t* const places = place + std::size_t{token} * top_k;
  MOEVAR_UNROLL
  for (std::uint32_t k = 0; k < top_k; ++k) {
    Words<kWords>* const to = rows + std::size_t{places[k]} * vectors;
    MOEVAR_UNROLL
    for (std::uint32_t u = 0; u < kCopyUnroll; ++u) {
      if (const std::uint32_t v = first + u * kLanes; v < vectors) {
        to[v] = held[u];
      }
    }
  }
}

/// Row place[row] of `from` → row `row` of `to`.
template <std::uint32_t kWords>
MOEVAR_HOST_DEVICE inline void gather_lane(std::uint32_t vectors,
                                           const std::uint32_t* __restrict__ place,
                                           const Words<kWords>* __restrict__ from,
                                           Words<kWords>* __restrict__ to, std::uint32_t row,
                                           std::uint32_t first) {
  std::array<Words<kWords>, kCopyUnroll> held;
  const Words<kWords>* const source = from + std::size_t{place[row]} * vectors;
  MOEVAR_UNROLL
  for (std::uint32_t u = 0; u < kCopyUnroll; ++u) {
    if (const std::uint32_t v = first + u * kLanes; v < vectors) {
      held[u] = source[v];
    }
  }
  Words<kWords>* const target = to + std::size_t{row} * vectors;
  MOEVAR_UNROLL
  for (std::uint32_t u = 0; u < kCopyUnroll; ++u) {
    if (const std::uint32_t v = first + u * kLanes; v < vectors) {
      target[v] = held[u];
    }
  }
}

/// A lane's sums: two floats a word.
template <std::uint32_t kWords>
using Sums = std::array<std::array<float, std::size_t{2} * kWords>, kSumUnroll>;

/// Adds weights[k] × row place[k] for kRows values of k, all of whose loads come before the first
/// addition.
template <std::uint32_t kRows, std::uint32_t kWords>
MOEVAR_HOST_DEVICE inline void add_rows(std::uint32_t vectors,
                                        const std::uint32_t* __restrict__ place,
                                        const float* __restrict__ weights,
                                        const Words<kWords>* __restrict__ rows, std::uint32_t first,
                                        Sums<kWords>& sums) {
  std::array<std::array<Words<kWords>, kSumUnroll>, kRows> held{};  // 0 beyond the row's end
  std::array<float, kRows> weight;
  MOEVAR_UNROLL
  for (std::uint32_t k = 0; k < kRows; ++k) {
    weight[k] = weights[k];
    const Words<kWords>* const row = rows + std::size_t{place[k]} * vectors;
    MOEVAR_UNROLL
    for (std::uint32_t u = 0; u < kSumUnroll; ++u) {
      if (const std::uint32_t v = first + u * kLanes; v < vectors) {
        held[k][u] = row[v];
      }
    }
  }
  MOEVAR_UNROLL
  for (std::uint32_t k = 0; k < kRows; ++k) {
    MOEVAR_UNROLL
    for (std::uint32_t u = 0; u < kSumUnroll; ++u) {
      // a branch, over which the compiler does not move a load down to save registers
      if (first + u * kLanes < vectors) {
        MOEVAR_UNROLL
        for (std::uint32_t w = 0; w < kWords; ++w) {
          const std::uint32_t two = held[k][u].word[w];
          sums[u][2 * w] += weight[k] * BFloat16{static_cast<std::uint16_t>(two & 0xFFFFU)}.value();
          sums[u][2 * w + 1] +=
              weight[k] * BFloat16{static_cast<std::uint16_t>(two >> 16U)}.value();
        }
      }
    }
  }
}

/// Token `token`'s lane of y = Σ_k weights[k] rows[place[k]].
template <std::uint32_t kWords>
MOEVAR_HOST_DEVICE inline void sum_lane(std::uint32_t vectors, std::uint32_t top_k,
                                        const std::uint32_t* __restrict__ place,
                                        const float* __restrict__ weights,
                                        const Words<kWords>* __restrict__ rows,
                                        Words<kWords>* __restrict__ y, std::uint32_t token,
                                        std::uint32_t first) {
  Sums<kWords> sums{};
  const std::size_t begin = std::size_t{token} * top_k;
  std::uint32_t k = 0;
  for (; k + kSumRows <= top_k; k += kSumRows) {
    add_rows<kSumRows>(vectors, place + begin + k, weights + begin + k, rows, first, sums);
  }
  for (; k < top_k; ++k) {
    add_rows<1>(vectors, place + begin + k, weights + begin + k, rows, first, sums);
  }
  Words<kWords>* const to = y + std::size_t{token} * vectors;
  MOEVAR_UNROLL
  for (std::uint32_t u = 0; u < kSumUnroll; ++u) {
    if (const std::uint32_t v = first + u * kLanes; v < vectors) {
      Words<kWords> rounded;
      MOEVAR_UNROLL
      for (std::uint32_t w = 0; w < kWords; ++w) {
        rounded.word[w] =
            BFloat16::from(sums[u][2 * w]).bits |
            (static_cast<std::uint32_t>(BFloat16::from(sums[u][2 * w + 1]).bits) << 16U);
      }
      to[v] = rounded;
    }
  }
}

/// How many of `count` ascending values are below `value`.
template <class T>
MOEVAR_HOST_DEVICE constexpr std::uint32_t count_below(const T* values, std::uint32_t count,
                                                       T value) noexcept {
  std::uint32_t begin = 0;
  while (count > 0) {
    const std::uint32_t half = count / 2;
    if (values[begin + half] < value) {
      begin += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return begin;
}

/// Where in slot order the row goes that arrived as number `row`: `arrived` and `grouped` hold
/// every piece's first row as it came (ascending) and in slot order.
MOEVAR_HOST_DEVICE constexpr std::uint32_t place_of_arrived(std::uint32_t row,
                                                            const std::int64_t* arrived,
                                                            const std::int64_t* grouped,
                                                            std::uint32_t pieces) noexcept {
  // the last piece that begins no later: those before it with the same beginning are empty
  const std::uint32_t piece = count_below(arrived, pieces, std::int64_t{row} + 1) - 1;
  return static_cast<std::uint32_t>(grouped[piece] + row - arrived[piece]);
}

}  // namespace moevar::token_exchange
