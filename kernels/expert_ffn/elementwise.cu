#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "expert_ffn/elementwise.hpp"
#include "expert_ffn/expert_ffn_cuda.hpp"
#include "expert_ffn/slot_layout.hpp"

namespace moevar::expert_ffn {

namespace {

constexpr int kThreads = 256;
constexpr int kRowThreads = 128;
constexpr int kVector = 8;  ///< bf16 values in 16 bytes

/// Blocks that fill a GPU some times over; threads go on by strides.
unsigned blocks_for(std::size_t items, int threads) {
  constexpr std::size_t kMost = 132 * 16;
  const std::size_t wanted = (items + threads - 1) / threads;
  return static_cast<unsigned>(std::clamp<std::size_t>(wanted, 1, kMost));
}

__device__ std::size_t thread_index() {
  return static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::size_t thread_count() { return static_cast<std::size_t>(gridDim.x) * blockDim.x; }

struct alignas(16) EightBf16 {
  BFloat16 values[kVector];
};
struct alignas(16) SixteenBytes {
  std::uint8_t values[2 * kVector];
};

__device__ BFloat16 rounded(float value) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
}

/// 32 products of a row, in 16-byte accesses.
struct Block {
  EightBf16 parts[kBlockRows / kVector];
  __device__ explicit Block(const BFloat16* from) {
    for (int i = 0; i < static_cast<int>(kBlockRows) / kVector; ++i) {
      parts[i] = reinterpret_cast<const EightBf16*>(from)[i];
    }
  }
  __device__ const BFloat16* values() const { return parts[0].values; }
};

/// The largest over a block of kRowThreads threads, in all of them.
__device__ float largest_of_block(float value) {
  __shared__ float of_warps[kRowThreads / 32];
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, distance));
  }
  if (threadIdx.x % 32 == 0) {
    of_warps[threadIdx.x / 32] = value;
  }
  __syncthreads();
  for (const float other : of_warps) {
    value = fmaxf(value, other);
  }
  return value;
}

__global__ void describe_run_kernel(const __grid_constant__ GroupPart part, RunSizes sizes,
                                    RunBuffers buffers, RunArrays arrays) {
  if (threadIdx.x < part.count) {
    describe_group(threadIdx.x, part, sizes, buffers, arrays);
  }
}

template <class T>
__global__ void fill_kernel(T* values, T value, std::size_t size) {
  for (std::size_t i = thread_index(); i < size; i += thread_count()) {
    values[i] = value;
  }
}

/// A mixing of the index' bits (Wellons, "hash-prospector", lowbias32) as a number.
__global__ void fill_noise_kernel(BFloat16* values, std::size_t size) {
  for (std::size_t i = thread_index(); i < size; i += thread_count()) {
    auto bits = static_cast<std::uint32_t>(i);
    bits = (bits ^ (bits >> 16U)) * 0x7FEB352DU;
    bits = (bits ^ (bits >> 15U)) * 0x846CA68BU;
    bits ^= bits >> 16U;
    values[i] = rounded(static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1p-31F);
  }
}

__global__ void activate_kernel(const BFloat16* __restrict__ products,
                                BFloat16* __restrict__ activations, std::size_t blocks) {
  for (std::size_t b = thread_index(); b < blocks; b += thread_count()) {
    const Block block(products + b * kBlockRows);
    EightBf16 out[kBlockActivations / kVector];
#pragma unroll
    for (int i = 0; i < static_cast<int>(kBlockActivations); ++i) {
      out[i / kVector].values[i % kVector] =
          rounded(block_activation(block.values(), static_cast<std::size_t>(i), 1.0F, 1.0F));
    }
    auto* const to = reinterpret_cast<EightBf16*>(activations + b * kBlockActivations);
    to[0] = out[0];
    to[1] = out[1];
  }
}

__global__ void quantise_kernel(const BFloat16* __restrict__ x,
                                std::uint8_t* __restrict__ quantised, float* __restrict__ factors,
                                int columns) {
  const std::size_t row = blockIdx.x;
  const auto* const from = reinterpret_cast<const EightBf16*>(x + row * columns);
  const int sixteens = columns / (2 * kVector);
  float largest = 0.0F;
  for (int i = threadIdx.x; i < 2 * sixteens; i += kRowThreads) {
    const EightBf16 eight = from[i];
    for (const BFloat16 value : eight.values) {
      largest = fmaxf(largest, fabsf(value.value()));
    }
  }
  largest = largest_of_block(largest);
  const float inverse = inverse_factor_of(largest);
  auto* const to = reinterpret_cast<SixteenBytes*>(quantised + row * columns);
  for (int i = threadIdx.x; i < sixteens; i += kRowThreads) {
    const EightBf16 halves[2] = {from[2 * i], from[2 * i + 1]};
    SixteenBytes out;
#pragma unroll
    for (int v = 0; v < 2 * kVector; ++v) {
      out.values[v] = e4m3_of(halves[v / kVector].values[v % kVector].value(), inverse);
    }
    to[i] = out;
  }
  if (threadIdx.x == 0) {
    factors[row] = largest / kMostE4m3;
  }
}

__global__ void activate_and_quantise_kernel(const BFloat16* __restrict__ products,
                                             RunArrays arrays, int groups,
                                             std::uint8_t* __restrict__ activations,
                                             float* __restrict__ factors, int blocks) {
  const std::size_t row = blockIdx.x;
  const float* const weights =
      arrays.weight_factors[group_of(static_cast<int>(row), arrays.first_rows, groups)];
  const float w1 = weights[0];
  const float w3 = weights[1];
  const BFloat16* const from = products + row * blocks * kBlockRows;
  float largest = 0.0F;
  for (int b = threadIdx.x; b < blocks; b += kRowThreads) {
    const Block block(from + b * kBlockRows);
#pragma unroll
    for (int i = 0; i < static_cast<int>(kBlockActivations); ++i) {
      largest = fmaxf(largest,
                      fabsf(block_activation(block.values(), static_cast<std::size_t>(i), w1, w3)));
    }
  }
  largest = largest_of_block(largest);
  const float inverse = inverse_factor_of(largest);
  auto* const to = reinterpret_cast<SixteenBytes*>(activations + row * blocks * kBlockActivations);
  for (int b = threadIdx.x; b < blocks; b += kRowThreads) {
    const Block block(from + b * kBlockRows);
    SixteenBytes out;
#pragma unroll
    for (int i = 0; i < static_cast<int>(kBlockActivations); ++i) {
      out.values[i] =
          e4m3_of(block_activation(block.values(), static_cast<std::size_t>(i), w1, w3), inverse);
    }
    to[b] = out;
  }
  if (threadIdx.x == 0) {
    factors[row] = largest / kMostE4m3 * weights[2];
  }
}

/// Rows of W1 and W3 to their places, 16 bytes a thread; y: W13's row.
__global__ void interleave_kernel(const uint4* __restrict__ plain, uint4* __restrict__ slot,
                                  std::size_t intermediate, int vectors) {
  const std::size_t row = blockIdx.x;
  const PlainRow source = plain_row(row);
  const uint4* const from = plain + (source.row + (source.up ? intermediate : 0)) * vectors;
  for (int i = threadIdx.x; i < vectors; i += kRowThreads) {
    slot[row * vectors + i] = from[i];
  }
}

/// The largest absolute value of matrix blockIdx.y of three, as bits, which order as the values do.
__global__ void largest_kernel(const EightBf16* __restrict__ plain, std::size_t vectors,
                               unsigned* largest) {
  const EightBf16* const from = plain + blockIdx.y * vectors;
  float mine = 0.0F;
  for (std::size_t i = thread_index(); i < vectors; i += thread_count()) {
    const EightBf16 eight = from[i];
    for (const BFloat16 value : eight.values) {
      mine = fmaxf(mine, fabsf(value.value()));
    }
  }
  mine = largest_of_block(mine);
  if (threadIdx.x == 0) {
    atomicMax(largest + blockIdx.y, __float_as_uint(mine));
  }
}

/// A row of W13 or, from row 2 * intermediate on, 16 values of W2.
__global__ void quantise_slot_kernel(const BFloat16* __restrict__ plain,
                                     std::uint8_t* __restrict__ slot, std::size_t hidden,
                                     std::size_t intermediate, const float* largest) {
  const std::size_t sixteens = 3 * hidden * intermediate / (2 * kVector);
  const std::size_t of_w13 = 2 * hidden * intermediate / (2 * kVector);
  for (std::size_t i = thread_index(); i < sixteens; i += thread_count()) {
    std::size_t from = i * 2 * kVector;
    int matrix = 2;
    if (i < of_w13) {
      const PlainRow source = plain_row(from / hidden);
      matrix = source.up ? 1 : 0;
      from = (source.row + (source.up ? intermediate : 0)) * hidden + from % hidden;
    }
    const float inverse = inverse_factor_of(largest[matrix]);
    const auto* const there = reinterpret_cast<const EightBf16*>(plain + from);
    const EightBf16 halves[2] = {there[0], there[1]};
    SixteenBytes out;
#pragma unroll
    for (int v = 0; v < 2 * kVector; ++v) {
      out.values[v] = e4m3_of(halves[v / kVector].values[v % kVector].value(), inverse);
    }
    reinterpret_cast<SixteenBytes*>(slot)[i] = out;
  }
}

__global__ void factors_kernel(float* largest) { largest[threadIdx.x] /= kMostE4m3; }

void started() { cuda::check(cudaGetLastError(), "launch of a kernel of expert_ffn"); }

}  // namespace

void describe_run(const GroupPart& part, const RunSizes& sizes, const RunBuffers& buffers,
                  const RunArrays& arrays, const cuda::Stream& stream) {
  describe_run_kernel<<<1, GroupPart::kMost, 0, stream.raw()>>>(part, sizes, buffers, arrays);
  started();
}

void fill(std::int64_t* values, std::int64_t value, std::size_t size, const cuda::Stream& stream) {
  fill_kernel<<<blocks_for(size, kThreads), kThreads, 0, stream.raw()>>>(values, value, size);
  started();
}
void fill(float* values, float value, std::size_t size, const cuda::Stream& stream) {
  fill_kernel<<<blocks_for(size, kThreads), kThreads, 0, stream.raw()>>>(values, value, size);
  started();
}

void fill_noise(BFloat16* values, std::size_t size, const cuda::Stream& stream) {
  fill_noise_kernel<<<blocks_for(size, kThreads), kThreads, 0, stream.raw()>>>(values, size);
  started();
}

void activate(const BFloat16* products, BFloat16* activations, std::size_t rows,
              std::size_t intermediate, const cuda::Stream& stream) {
  const std::size_t blocks = rows * intermediate / kBlockActivations;
  activate_kernel<<<blocks_for(blocks, kThreads), kThreads, 0, stream.raw()>>>(products,
                                                                               activations, blocks);
  started();
}

void quantise(const BFloat16* x, std::uint8_t* quantised, float* factors, std::size_t rows,
              std::size_t columns, const cuda::Stream& stream) {
  quantise_kernel<<<static_cast<unsigned>(rows), kRowThreads, 0, stream.raw()>>>(
      x, quantised, factors, static_cast<int>(columns));
  started();
}

void activate_and_quantise(const BFloat16* products, const RunArrays& arrays, int groups,
                           std::uint8_t* activations, float* factors, std::size_t rows,
                           std::size_t intermediate, const cuda::Stream& stream) {
  activate_and_quantise_kernel<<<static_cast<unsigned>(rows), kRowThreads, 0, stream.raw()>>>(
      products, arrays, groups, activations, factors,
      static_cast<int>(intermediate / kBlockActivations));
  started();
}

void bf16_to_slot(const Shape& shape, const BFloat16* plain, void* slot,
                  const cuda::Stream& stream) {
  const std::size_t matrix = shape.hidden * shape.intermediate;
  interleave_kernel<<<static_cast<unsigned>(2 * shape.intermediate), kRowThreads, 0,
                      stream.raw()>>>(reinterpret_cast<const uint4*>(plain),
                                      static_cast<uint4*>(slot), shape.intermediate,
                                      static_cast<int>(shape.hidden) / kVector);
  started();
  cuda::copy_bytes(static_cast<BFloat16*>(slot) + 2 * matrix, plain + 2 * matrix,
                   matrix * sizeof(BFloat16), stream);
}

void fp8_to_slot(const Shape& shape, const BFloat16* plain, void* slot,
                 const cuda::Stream& stream) {
  const std::size_t matrix = shape.hidden * shape.intermediate;
  auto* const bytes = static_cast<std::uint8_t*>(slot);
  auto* const factors = reinterpret_cast<float*>(bytes + 3 * matrix);
  const dim3 three(blocks_for(matrix / kVector, kRowThreads), 3);
  largest_kernel<<<three, kRowThreads, 0, stream.raw()>>>(reinterpret_cast<const EightBf16*>(plain),
                                                          matrix / kVector,
                                                          reinterpret_cast<unsigned*>(factors));
  started();
  quantise_slot_kernel<<<blocks_for(3 * matrix / (2 * kVector), kThreads), kThreads, 0,
                         stream.raw()>>>(plain, bytes, shape.hidden, shape.intermediate, factors);
  started();
  factors_kernel<<<1, 3, 0, stream.raw()>>>(factors);
  started();
}

}  // namespace moevar::expert_ffn
