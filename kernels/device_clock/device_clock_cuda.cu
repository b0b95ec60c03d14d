#include "device_clock/device_clock_kernels.hpp"

namespace moevar::device_clock {

namespace {

__device__ std::uint64_t global_timer() {
  std::uint64_t now = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

__global__ void write_time(std::uint64_t* word) { *word = global_timer(); }

__global__ void find_step(std::uint64_t for_ns, std::uint64_t* smallest) {
  const std::uint64_t begin = global_timer();
  std::uint64_t step = ~std::uint64_t{0};
  for (std::uint64_t last = begin; last - begin < for_ns;) {
    const std::uint64_t now = global_timer();
    // unsigned: a clock that was set back is no step
    if (now > last && now - last < step) {
      step = now - last;
    }
    last = now > last ? now : last;
  }
  *smallest = step;
}

/// Volatile: the host's words are read from its memory each time.
__global__ void answer_questions(const volatile std::uint32_t* question, std::uint32_t rounds,
                                 std::uint64_t patience_ns, volatile std::uint64_t* answers) {
  const std::uint64_t begin = global_timer();
  for (std::uint32_t round = 1; round <= rounds; ++round) {
    while (*question < round) {
      if (global_timer() - begin > patience_ns) {
        return;
      }
    }
    answers[round - 1] = global_timer();
  }
}

}  // namespace

void launch_stamp(std::uint64_t* word, cudaStream_t stream) {
  write_time<<<1, 1, 0, stream>>>(word);
  MOEVAR_CUDA(cudaGetLastError());
}

void launch_find_step(std::uint64_t for_ns, std::uint64_t* smallest, cudaStream_t stream) {
  find_step<<<1, 1, 0, stream>>>(for_ns, smallest);
  MOEVAR_CUDA(cudaGetLastError());
}

void launch_answers(const std::uint32_t* question, std::uint32_t rounds, std::uint64_t patience_ns,
                    std::uint64_t* answers, cudaStream_t stream) {
  answer_questions<<<1, 1, 0, stream>>>(question, rounds, patience_ns, answers);
  MOEVAR_CUDA(cudaGetLastError());
}

}  // namespace moevar::device_clock
