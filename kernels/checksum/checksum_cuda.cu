#include <algorithm>

#include "checksum/checksum_cuda.hpp"
#include "checksum/checksum_share.hpp"

namespace moevar::checksum {

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / 32;
constexpr unsigned kBlocksPerSm = 8;  // 2048 threads: all that an SM holds

__global__ void __launch_bounds__(kThreads) add_shares(Values values, unsigned long long* sum) {
  const std::size_t thread = std::size_t{blockIdx.x} * kThreads + threadIdx.x;
  unsigned long long mine = share_of(values, thread, std::size_t{gridDim.x} * kThreads);
  for (int lane = 16; lane > 0; lane /= 2) {
    mine += __shfl_down_sync(~0U, mine, lane);
  }
  __shared__ unsigned long long warps[kWarps];
  if (threadIdx.x % 32 == 0) {
    warps[threadIdx.x / 32] = mine;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned warp = 1; warp < kWarps; ++warp) {
      mine += warps[warp];
    }
    atomicAdd(sum, mine);
  }
}

}  // namespace

void sum_cuda(const BFloat16* values, std::size_t count, std::uint64_t* sum,
              const cuda::Stream& stream) {
  static_assert(sizeof(unsigned long long) == sizeof(*sum));
  MOEVAR_CUDA(cudaMemsetAsync(sum, 0, sizeof(*sum), stream.raw()));
  if (count == 0) {
    return;
  }
  const std::size_t per_block = kThreads * kPacksAtOnce * kValuesPerPack;
  const std::size_t most = std::size_t{kBlocksPerSm} * static_cast<unsigned>(cuda::sm_count());
  const auto blocks = static_cast<unsigned>(std::min((count + per_block - 1) / per_block, most));
  add_shares<<<blocks, kThreads, 0, stream.raw()>>>(arrange(values, count),
                                                    reinterpret_cast<unsigned long long*>(sum));
  MOEVAR_CUDA(cudaGetLastError());
}

}  // namespace moevar::checksum
