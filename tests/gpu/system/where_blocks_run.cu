#include "where_blocks_run.hpp"

namespace moevar::cuda {

namespace {

__device__ unsigned long long global_ns() {
  unsigned long long ns;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
  return ns;
}

__global__ void count_by_sm(int us, int* counts) {
  unsigned sm;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
  atomicAdd(&counts[sm % kMostSms], 1);
  const unsigned long long start = global_ns();
  while (global_ns() - start < 1000ULL * us) {
  }
}

}  // namespace

void count_blocks_by_sm(int blocks, int us, int* counts, const Stream& stream) {
  count_by_sm<<<blocks, 1024, 0, stream.raw()>>>(us, counts);
  MOEVAR_CUDA(cudaGetLastError());
}

}  // namespace moevar::cuda
