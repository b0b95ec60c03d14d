#pragma once

#include <algorithm>
#include <array>
#include <barrier>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

/// A GPU's grid of threads on the host, for tests of device code (a .cuh, included after this)
/// where there is no GPU: a block's threads are the host's, and so a missing barrier is a data race
/// that a thread sanitizer sees; blocks run one after the other. What is here is what the device
/// code of kernels/ uses, of CUDA's own names.

// NOLINTBEGIN(bugprone-reserved-identifier)
#define __global__
#define __device__
#define __launch_bounds__(threads)
/// One block at a time runs, so that a static variable is its shared memory.
#define __shared__ static
#define MOEVAR_DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(moevar::emulated::dynamic_shared().data())

struct EmulatedIndex {
  unsigned x = 0;
};
inline thread_local EmulatedIndex threadIdx, blockIdx;
inline EmulatedIndex blockDim, gridDim;

namespace moevar::emulated {

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kMostThreads = 1024;

inline auto& dynamic_shared() {
  alignas(16) static std::array<std::byte, std::size_t{48} << 10U> memory;
  return memory;
}

/// What the threads of the running block meet at.
struct Block {
  explicit Block(unsigned threads) : all(threads) {
    for (unsigned begin = 0; begin < threads; begin += kWarp) {
      warps.push_back(std::make_unique<std::barrier<>>(std::min(kWarp, threads - begin)));
    }
  }
  std::barrier<> all;
  std::vector<std::unique_ptr<std::barrier<>>> warps;
  std::array<std::uint32_t, kMostThreads> words{};  ///< that lanes show each other
};
inline std::unique_ptr<Block> block;

inline void meet_warp() { block->warps[threadIdx.x / kWarp]->arrive_and_wait(); }

/// read(the words that the lanes of this thread's warp show).
template <class Read>
auto exchange(std::uint32_t word, const Read& read) {
  block->words[threadIdx.x] = word;
  meet_warp();
  const auto result = read(block->words.data() + threadIdx.x / kWarp * kWarp);
  meet_warp();
  return result;
}

/// Runs kernel() in all threads of all blocks; shared memory is poisoned before.
template <class Kernel>
void launch(unsigned blocks, unsigned threads, const Kernel& kernel) {
  blockDim.x = threads;
  gridDim.x = blocks;
  for (unsigned b = 0; b < blocks; ++b) {
    block = std::make_unique<Block>(threads);
    dynamic_shared().fill(std::byte{0x77});
    std::vector<std::thread> all;
    all.reserve(threads);
    for (unsigned t = 0; t < threads; ++t) {
      all.emplace_back([&kernel, b, t] {
        blockIdx.x = b;
        threadIdx.x = t;
        kernel();
      });
    }
    for (std::thread& thread : all) {
      thread.join();
    }
  }
}

}  // namespace moevar::emulated

inline void __syncthreads() { moevar::emulated::block->all.arrive_and_wait(); }
inline void __syncwarp() { moevar::emulated::meet_warp(); }

inline unsigned __match_any_sync(unsigned, std::uint32_t word) {
  return moevar::emulated::exchange(word, [word](const std::uint32_t* words) {
    unsigned same = 0;
    for (unsigned lane = 0; lane < moevar::emulated::kWarp; ++lane) {
      same |= words[lane] == word ? 1U << lane : 0U;
    }
    return same;
  });
}
inline unsigned __reduce_max_sync(unsigned, std::uint32_t word) {
  return moevar::emulated::exchange(word, [](const std::uint32_t* words) {
    return *std::max_element(words, words + moevar::emulated::kWarp);
  });
}
inline unsigned __reduce_min_sync(unsigned, std::uint32_t word) {
  return moevar::emulated::exchange(word, [](const std::uint32_t* words) {
    return *std::min_element(words, words + moevar::emulated::kWarp);
  });
}
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  return moevar::emulated::exchange(
      std::bit_cast<std::uint32_t>(value), [mask](const std::uint32_t* words) {
        const unsigned other = threadIdx.x % moevar::emulated::kWarp ^ static_cast<unsigned>(mask);
        return std::bit_cast<float>(words[other]);
      });
}
inline int __popc(unsigned word) { return std::popcount(word); }

namespace cub {

enum BlockScanAlgorithm { BLOCK_SCAN_WARP_SCANS };

template <class T, unsigned kThreads, BlockScanAlgorithm>
class BlockScan {
 public:
  struct TempStorage {
    std::array<T, kThreads> values;
  };
  explicit BlockScan(TempStorage& memory) : values_(memory.values) {}

  void ExclusiveSum(T in, T& before, T& sum) {
    values_[threadIdx.x] = in;
    __syncthreads();
    before = sum = 0;
    for (unsigned t = 0; t < kThreads; ++t) {
      before += t < threadIdx.x ? values_[t] : 0;
      sum += values_[t];
    }
    // the real one reads its memory to the end too: the next use is to come after a barrier
  }
  void ExclusiveSum(T in, T& before) {
    T sum = 0;
    ExclusiveSum(in, before, sum);
  }

 private:
  std::array<T, kThreads>& values_;
};

}  // namespace cub
// NOLINTEND(bugprone-reserved-identifier)
