#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "system/cuda.hpp"

/// CUTLASS's grouped GEMMs as the experts need them, without CUTLASS's headers.
namespace moevar::expert_ffn {

/// out[rows, columns] = a[rows, depth] b[columns, depth]^T
struct ProductShape {
  int rows = 0;
  int columns = 0;
  int depth = 0;
};

/// Arrays in the GPU's memory, an element a group; every group has rows.
struct GroupedProduct {
  int groups = 0;
  const ProductShape* shapes = nullptr;
  const void* const* a = nullptr;
  const void* const* b = nullptr;
  void* const* out = nullptr;
  const float* const* row_factors = nullptr;  ///< of the group's rows; where Result::scaled
  const std::int64_t* a_strides = nullptr;    ///< elements between rows
  const std::int64_t* b_strides = nullptr;
  const std::int64_t* out_strides = nullptr;
};

enum class Result {
  plain,   ///< the product, bf16 from bf16
  swiglu,  ///< silu(gate) * up of a slot's interleaved columns (slot_layout.hpp), bf16 from bf16:
           ///< out has half as many columns as the product
  scaled   ///< the product with every row times its factor, bf16 from e4m3
};

/// One kernel: a tile and how warps share it.
struct GroupedGemm {
  const char* name = nullptr;
  Result result = Result::plain;
  std::size_t (*workspace_bytes)(int sms) = nullptr;
  /// Queues the products on `sms` streaming multiprocessors. `along_columns`: neighbouring blocks
  /// take neighbouring columns of out, not rows. Throws LibraryError where it cannot start.
  void (*run)(const GroupedProduct& product, void* workspace, int sms, bool along_columns,
              const cuda::Stream& stream) = nullptr;
};

/// All that was compiled; empty without CUTLASS.
std::span<const GroupedGemm> grouped_gemms();

}  // namespace moevar::expert_ffn
