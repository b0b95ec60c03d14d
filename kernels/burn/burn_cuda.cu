#include "base/random.hpp"
#include "burn/burn_kernels.hpp"
#include "burn/burst.hpp"

namespace moevar::burn {

namespace {

__global__ void write_normals(RandomKey key, BFloat16* matrix, std::size_t count) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    matrix[i] = BFloat16::from(normal_from(key[i].bits()));
  }
}

}  // namespace

void fill_with_normals(std::uint64_t key, BFloat16* matrix, std::size_t count,
                       const cuda::Stream& stream) {
  constexpr unsigned kBlocks = 2048;
  constexpr unsigned kThreads = 256;
  write_normals<<<kBlocks, kThreads, 0, stream.raw()>>>(RandomKey(key), matrix, count);
  MOEVAR_CUDA(cudaGetLastError());
}

}  // namespace moevar::burn
