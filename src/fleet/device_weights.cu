#include <algorithm>

#include "fleet/device_weights.hpp"
#include "fleet/uniform_values.hpp"

namespace moevar::fleet {

namespace {

constexpr unsigned kThreads = 256;
constexpr std::size_t kMostBlocks = 1U << 16U;

/// Rows of `length` values; the row's key is `keys` narrowed by `first_row` + its number, then, for
/// a router, by its matrix.
struct KeyOfRow {
  RandomKey keys;
  std::uint64_t first_row;
  bool is_router;

  __device__ RandomKey operator()(std::uint64_t row) const {
    const RandomKey key = keys[first_row + row];
    return is_router ? key[static_cast<std::uint64_t>(WeightMatrix::router)] : key;
  }
};

__global__ void fill_matrix(RandomKey key, double edge, std::size_t size, BFloat16* values) {
  const std::size_t stride = std::size_t{blockDim.x} * gridDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += stride) {
    values[i] = BFloat16::from(uniform_value(key, i, edge));
  }
}

__global__ void fill_rows(KeyOfRow key_of, double edge, std::size_t length, std::size_t size,
                          BFloat16* values) {
  const std::size_t stride = std::size_t{blockDim.x} * gridDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += stride) {
    values[i] = BFloat16::from(uniform_value(key_of(i / length), i % length, edge));
  }
}

unsigned blocks_for(std::size_t size) {
  return static_cast<unsigned>(std::min((size + kThreads - 1) / kThreads, kMostBlocks));
}

}  // namespace

void fill_expert_cuda(const expert_ffn::Shape& shape, std::uint64_t seed, int layer,
                      std::int32_t expert, BFloat16* plain, const cuda::Stream& stream) {
  const std::size_t size = shape.hidden * shape.intermediate;
  for (const auto matrix : kExpertMatrices) {
    fill_matrix<<<blocks_for(size), kThreads, 0, stream.raw()>>>(
        matrix_key(seed, layer, expert, matrix), edge_of(variance_of(shape, matrix)), size, plain);
    MOEVAR_CUDA(cudaGetLastError());
    plain += size;
  }
}

void fill_router_cuda(std::uint64_t seed, int layer, std::size_t experts, std::size_t hidden,
                      BFloat16* router, const cuda::Stream& stream) {
  const auto keys = random_stream(seed, Stream::weights)[static_cast<std::uint64_t>(layer)];
  const std::size_t size = experts * hidden;
  fill_rows<<<blocks_for(size), kThreads, 0, stream.raw()>>>(
      KeyOfRow{keys, 0, true}, edge_of(1.0 / static_cast<double>(hidden)), hidden, size, router);
  MOEVAR_CUDA(cudaGetLastError());
}

void fill_activations_cuda(std::uint64_t seed, std::int64_t first_token, std::size_t tokens,
                           std::size_t hidden, BFloat16* x, const cuda::Stream& stream) {
  const std::size_t size = tokens * hidden;
  if (size == 0) {
    return;
  }
  fill_rows<<<blocks_for(size), kThreads, 0, stream.raw()>>>(
      KeyOfRow{random_stream(seed, Stream::activations), static_cast<std::uint64_t>(first_token),
               false},
      edge_of(1.0), hidden, size, x);
  MOEVAR_CUDA(cudaGetLastError());
}

}  // namespace moevar::fleet
