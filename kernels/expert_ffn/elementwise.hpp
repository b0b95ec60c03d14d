#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "expert_ffn/activation.hpp"
#include "expert_ffn/expert_ffn.hpp"
#include "expert_ffn/grouped_gemm.hpp"
#include "expert_ffn/slot_layout.hpp"
#include "system/cuda.hpp"

/// What DeviceExperts launches besides matrix products.
namespace moevar::expert_ffn {

/// Arrays in the GPU's memory that describe a run to grouped products, an element a group.
struct RunArrays {
  ProductShape* first_shapes = nullptr;
  ProductShape* second_shapes = nullptr;
  const void** inputs = nullptr;  ///< of the first product
  const void** w13 = nullptr;
  void** products = nullptr;     ///< of the first product, both factors of the activations
  void** activations = nullptr;  ///< input of the second product
  const void** w2 = nullptr;
  void** outputs = nullptr;
  const float** input_factors = nullptr;
  const float** activation_factors = nullptr;
  const float** weight_factors = nullptr;  ///< fp8: of W1, W3, W2
  int* first_rows = nullptr;               ///< of all rows
};

/// Where a run's rows and scratch memory lie.
struct RunBuffers {
  const std::byte* inputs = nullptr;
  std::byte* products = nullptr;
  std::byte* activations = nullptr;
  std::byte* outputs = nullptr;
  const float* input_factors = nullptr;
  const float* activation_factors = nullptr;
};

/// A part of a run's groups, small enough for the arguments of a kernel, which a graph keeps: no
/// memory of the host is read later.
struct GroupPart {
  static constexpr int kMost = 128;
  int first = 0;  ///< index of its first group
  int count = 0;
  std::array<const void*, kMost> slots{};
  std::array<int, kMost> first_rows{};
  std::array<int, kMost> rows{};
};

/// Sizes that the addresses follow from.
struct RunSizes {
  int hidden = 0;
  int intermediate = 0;
  int element_bytes = 2;  ///< of inputs, activations and weights
};

/// Fills the arrays' elements of one group of a part.
MOEVAR_BOTH inline void describe_group(std::size_t index, const GroupPart& part,
                                       const RunSizes& sizes, const RunBuffers& buffers,
                                       const RunArrays& arrays) {
  constexpr std::size_t kBf16Bytes = 2;
  const int group = part.first + static_cast<int>(index);
  const int rows = part.rows[index];
  const auto before = static_cast<std::size_t>(part.first_rows[index]);
  const auto hidden = static_cast<std::size_t>(sizes.hidden);
  const auto intermediate = static_cast<std::size_t>(sizes.intermediate);
  const auto element = static_cast<std::size_t>(sizes.element_bytes);
  const auto* const slot = static_cast<const std::byte*>(part.slots[index]);
  const std::size_t matrix = hidden * intermediate * element;
  arrays.first_shapes[group] = {rows, 2 * sizes.intermediate, sizes.hidden};
  arrays.second_shapes[group] = {rows, sizes.hidden, sizes.intermediate};
  arrays.inputs[group] = buffers.inputs + before * hidden * element;
  arrays.w13[group] = slot;
  arrays.products[group] = buffers.products + before * 2 * intermediate * kBf16Bytes;
  arrays.activations[group] = buffers.activations + before * intermediate * element;
  arrays.w2[group] = slot + 2 * matrix;
  arrays.outputs[group] = buffers.outputs + before * hidden * kBf16Bytes;
  arrays.input_factors[group] = buffers.input_factors + before;
  arrays.activation_factors[group] = buffers.activation_factors + before;
  // only read with fp8, where the factors lie behind the matrices
  arrays.weight_factors[group] = reinterpret_cast<const float*>(slot + 3 * matrix);
  arrays.first_rows[group] = part.first_rows[index];
}

/// Which of `groups` groups a row belongs to; first_rows ascend.
MOEVAR_BOTH inline int group_of(int row, const int* first_rows, int groups) {
  int low = 0;
  for (int high = groups; high - low > 1;) {
    const int middle = low + (high - low) / 2;
    (row < first_rows[middle] ? high : low) = middle;
  }
  return low;
}

/// Activation `index` of a block of a row of products (slot_layout.hpp).
MOEVAR_BOTH inline float block_activation(const BFloat16* block, std::size_t index,
                                          float gate_factor, float up_factor) {
  const float gate = block[slot_row({index, false})].value();
  const float up = block[slot_row({index, true})].value();
  return activation(gate_factor * gate, up_factor * up);
}

/// Fills the arrays for a part of the groups.
void describe_run(const GroupPart& part, const RunSizes& sizes, const RunBuffers& buffers,
                  const RunArrays& arrays, const cuda::Stream& stream);

/// Gives `size` values: all equal, or noise between -1 and 1, which loads tensor cores as
/// activations do (zeros would draw less power, and run at a higher clock).
void fill(std::int64_t* values, std::int64_t value, std::size_t size, const cuda::Stream& stream);
void fill(float* values, float value, std::size_t size, const cuda::Stream& stream);
void fill_noise(BFloat16* values, std::size_t size, const cuda::Stream& stream);

/// activations[rows, intermediate] of products[rows, 2 intermediate], whose columns are
/// interleaved.
void activate(const BFloat16* products, BFloat16* activations, std::size_t rows,
              std::size_t intermediate, const cuda::Stream& stream);

/// e4m3 of every row of x[rows, columns] divided by its factor, which is its largest absolute value
/// over 448; columns a multiple of 16.
void quantise(const BFloat16* x, std::uint8_t* quantised, float* factors, std::size_t rows,
              std::size_t columns, const cuda::Stream& stream);

/// Both at once: activations of products whose weights' factors are still to be applied, quantised
/// by rows. W2's factor goes into the rows' factors.
void activate_and_quantise(const BFloat16* products, const RunArrays& arrays, int groups,
                           std::uint8_t* activations, float* factors, std::size_t rows,
                           std::size_t intermediate, const cuda::Stream& stream);

/// to_slot() for each precision; the slot's bytes behind its matrices are 0 before.
void bf16_to_slot(const Shape& shape, const BFloat16* plain, void* slot,
                  const cuda::Stream& stream);
void fp8_to_slot(const Shape& shape, const BFloat16* plain, void* slot, const cuda::Stream& stream);

}  // namespace moevar::expert_ffn
