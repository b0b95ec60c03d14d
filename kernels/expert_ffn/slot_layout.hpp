#pragma once

#include <cstddef>

#if defined(__CUDACC__)
#define MOEVAR_BOTH __host__ __device__
#else
#define MOEVAR_BOTH
#endif

/// Where the rows of W1 and W3 lie in a slot. One product x W13^T makes both factors of every
/// activation, and the tensor cores leave to a thread, in every 8 columns of a row, the columns 2t
/// and 2t + 1 (t: its lane modulo 4; PTX ISA, "wgmma.mma_async.m64nNk16", figure of D). So 16 rows
/// of W1 and the same of W3 make a block of 32 rows, in an order that gives a thread 4 neighbouring
/// activations with both their factors.
namespace moevar::expert_ffn {

constexpr std::size_t kBlockActivations = 16;              ///< of a block
constexpr std::size_t kBlockRows = 2 * kBlockActivations;  ///< of W13 in a block
constexpr std::size_t kThreadActivations = 4;              ///< neighbours in one thread
constexpr std::size_t kColumnsOfMma = 8;                   ///< that four lanes share

/// Which row of W1 (W3 where `up`) a row of W13 is.
struct PlainRow {
  std::size_t row = 0;
  bool up = false;
};

/// Row of W13 that holds row `row` of W1, or of W3 where `up`.
MOEVAR_BOTH constexpr std::size_t slot_row(PlainRow plain) noexcept {
  const std::size_t in_block = plain.row % kBlockActivations;
  const std::size_t thread = in_block / kThreadActivations;
  const std::size_t in_thread = in_block % kThreadActivations;
  return plain.row / kBlockActivations * kBlockRows +
         kColumnsOfMma * (in_thread / 2 + (plain.up ? 2 : 0)) + 2 * thread + in_thread % 2;
}

/// Its inverse.
MOEVAR_BOTH constexpr PlainRow plain_row(std::size_t slot_row) noexcept {
  const std::size_t in_block = slot_row % kBlockRows;
  const std::size_t part = in_block / kColumnsOfMma;
  const std::size_t thread = in_block % kColumnsOfMma / 2;
  return {slot_row / kBlockRows * kBlockActivations + kThreadActivations * thread + 2 * (part % 2) +
              in_block % 2,
          part >= 2};
}

}  // namespace moevar::expert_ffn
