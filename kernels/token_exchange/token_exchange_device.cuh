#pragma once

// The kernels of token_exchange_cuda.cu; a test on the host includes tests/gpu/emulated_grid.hpp
// before it.

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#include <cub/block/block_scan.cuh>
#endif

#include "base/host_device.hpp"
#include "token_exchange/token_exchange_parts.hpp"

namespace moevar::token_exchange {

namespace {

constexpr unsigned kThreads = 128;  ///< few a block, so that little work still spreads
constexpr unsigned kScanThreads = 256;

// what one block plans by itself: the rows of a decoding step, where launches cost more than work
constexpr unsigned kPlanThreads = 1024;
constexpr unsigned kPlanWarps = kPlanThreads / kLanes;
constexpr unsigned kPlanRowsPerThread = 8;
constexpr unsigned kPlanMostRows = kPlanThreads * kPlanRowsPerThread;
constexpr unsigned kPlanMostSlots = 512;

__device__ std::uint32_t thread_of_grid() { return blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void count_up(std::uint32_t* values, std::uint32_t count) {
  if (const std::uint32_t i = thread_of_grid(); i < count) {
    values[i] = i;
  }
}

/// The whole plan of at most kPlanMostRows rows and kPlanMostSlots slots by one block, of which
/// each warp counts a consecutive part of the rows, 32 at a time.
__global__ void __launch_bounds__(kPlanThreads)
    plan_by_one_block(const std::int32_t* __restrict__ slot_of_row, std::uint32_t rows,
                      std::uint32_t slots, std::uint32_t* __restrict__ place,
                      std::int64_t* __restrict__ rows_per_slot) {
  using Scan = cub::BlockScan<std::uint32_t, kPlanThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  __shared__ typename Scan::TempStorage scan_memory;
  __shared__ std::uint32_t begin_of_slot[kPlanMostSlots];
  MOEVAR_DYNAMIC_SHARED(std::uint16_t, counts);  // [kPlanWarps, slots]
  for (std::uint32_t i = threadIdx.x; i < kPlanWarps * slots; i += kPlanThreads) {
    counts[i] = 0;
  }
  const std::uint32_t lane = threadIdx.x % kLanes;
  const std::uint32_t rows_per_thread = (rows + kPlanThreads - 1) / kPlanThreads;
  const std::uint32_t first = threadIdx.x / kLanes * kLanes * rows_per_thread + lane;
  std::uint16_t* const mine = counts + std::size_t{threadIdx.x / kLanes} * slots;

  std::uint32_t slot[kPlanRowsPerThread];
  std::uint32_t rank[kPlanRowsPerThread];  // among its warp's rows of the same slot
  MOEVAR_UNROLL
  for (std::uint32_t i = 0; i < kPlanRowsPerThread; ++i) {
    const std::uint32_t row = first + i * kLanes;
    const bool taken = i < rows_per_thread && row < rows;
    slot[i] = taken ? static_cast<std::uint32_t>(slot_of_row[row]) : slots;  // slots: no row
  }
  __syncthreads();
  MOEVAR_UNROLL
  for (std::uint32_t i = 0; i < kPlanRowsPerThread; ++i) {
    const std::uint32_t same = __match_any_sync(0xFFFFFFFFU, slot[i]);
    const std::uint32_t below = same & ((1U << lane) - 1U);
    const std::uint32_t before = slot[i] < slots ? mine[slot[i]] : 0;
    rank[i] = before + static_cast<std::uint32_t>(__popc(below));
    __syncwarp();
    if (slot[i] < slots && below == 0) {
      mine[slot[i]] = static_cast<std::uint16_t>(before + static_cast<std::uint32_t>(__popc(same)));
    }
    __syncwarp();
  }
  __syncthreads();
  std::uint32_t sum = 0;
  if (threadIdx.x < slots) {
    for (std::uint32_t warp = 0; warp < kPlanWarps; ++warp) {
      std::uint16_t& count = counts[warp * slots + threadIdx.x];
      const std::uint32_t of_warp = count;
      count = static_cast<std::uint16_t>(sum);
      sum += of_warp;
    }
    rows_per_slot[threadIdx.x] = sum;
  }
  std::uint32_t begin = 0;
  Scan(scan_memory).ExclusiveSum(sum, begin);
  if (threadIdx.x < slots) {
    begin_of_slot[threadIdx.x] = begin;
  }
  __syncthreads();
  MOEVAR_UNROLL
  for (std::uint32_t i = 0; i < kPlanRowsPerThread; ++i) {
    if (slot[i] < slots) {
      place[first + i * kLanes] = begin_of_slot[slot[i]] + mine[slot[i]] + rank[i];
    }
  }
}

/// From the sorted rows: places by inversion, counts by search. A thread for each row and slot.
__global__ void finish_plan(const std::uint32_t* __restrict__ sorted_slot,
                            const std::uint32_t* __restrict__ sorted_row, std::uint32_t rows,
                            std::uint32_t slots, std::uint32_t* __restrict__ place,
                            std::int64_t* __restrict__ rows_per_slot) {
  const std::uint32_t i = thread_of_grid();
  if (i < slots) {  // first: it takes longest
    rows_per_slot[i] = std::int64_t{count_below(sorted_slot, rows, i + 1)} -
                       std::int64_t{count_below(sorted_slot, rows, i)};
  }
  if (i < rows) {
    place[sorted_row[i]] = i;
  }
}

template <std::uint32_t kWords>
__global__ void __launch_bounds__(kThreads)
    scatter(std::uint32_t tasks, std::uint32_t parts, std::uint32_t vectors, std::uint32_t top_k,
            const std::uint32_t* __restrict__ place, const Words<kWords>* __restrict__ x,
            Words<kWords>* __restrict__ rows) {
  if (const std::uint32_t task = thread_of_grid() / kLanes; task < tasks) {
    const Part part = part_of(task, parts, kCopyUnroll);
    scatter_lane(vectors, top_k, place, x, rows, part.row, part.first + threadIdx.x % kLanes);
  }
}

template <std::uint32_t kWords>
__global__ void __launch_bounds__(kThreads)
    gather(std::uint32_t tasks, std::uint32_t parts, std::uint32_t vectors,
           const std::uint32_t* __restrict__ place, const Words<kWords>* __restrict__ from,
           Words<kWords>* __restrict__ to) {
  if (const std::uint32_t task = thread_of_grid() / kLanes; task < tasks) {
    const Part part = part_of(task, parts, kCopyUnroll);
    gather_lane(vectors, place, from, to, part.row, part.first + threadIdx.x % kLanes);
  }
}

template <std::uint32_t kWords>
__global__ void __launch_bounds__(kThreads)
    weighted_sum(std::uint32_t tasks, std::uint32_t parts, std::uint32_t vectors,
                 std::uint32_t top_k, const std::uint32_t* __restrict__ place,
                 const float* __restrict__ weights, const Words<kWords>* __restrict__ rows,
                 Words<kWords>* __restrict__ y) {
  if (const std::uint32_t task = thread_of_grid() / kLanes; task < tasks) {
    const Part part = part_of(task, parts, kSumUnroll);
    sum_lane(vectors, top_k, place, weights, rows, y, part.row, part.first + threadIdx.x % kLanes);
  }
}

/// Beginnings of all pieces in both orders, and rows per slot, by one block.
__global__ void __launch_bounds__(kScanThreads)
    find_pieces(const std::int64_t* __restrict__ counts, std::uint32_t sources, std::uint32_t slots,
                std::int64_t* __restrict__ arrived, std::int64_t* __restrict__ grouped,
                std::int64_t* __restrict__ rows_per_slot) {
  using Scan = cub::BlockScan<std::int64_t, kScanThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  __shared__ typename Scan::TempStorage memory;
  for (std::uint32_t slot = threadIdx.x; slot < slots; slot += kScanThreads) {
    std::int64_t sum = 0;
    for (std::uint32_t source = 0; source < sources; ++source) {
      sum += counts[std::size_t{source} * slots + slot];
    }
    rows_per_slot[slot] = sum;
  }
  const std::uint32_t pieces = sources * slots;
  std::int64_t arrived_before = 0;
  std::int64_t grouped_before = 0;
  for (std::uint32_t base = 0; base < pieces; base += kScanThreads) {
    const std::uint32_t i = base + threadIdx.x;
    // the i-th piece of slot order is piece `by_slot` of the order of arrival
    const std::uint32_t by_slot = i % sources * slots + i / sources;
    std::int64_t begin = 0;
    std::int64_t sum = 0;
    Scan(memory).ExclusiveSum(i < pieces ? counts[i] : 0, begin, sum);
    if (i < pieces) {
      arrived[i] = arrived_before + begin;
    }
    arrived_before += sum;
    __syncthreads();
    Scan(memory).ExclusiveSum(i < pieces ? counts[by_slot] : 0, begin, sum);
    if (i < pieces) {
      grouped[by_slot] = grouped_before + begin;
    }
    grouped_before += sum;
    __syncthreads();
  }
}

__global__ void place_arrived(const std::int64_t* __restrict__ arrived,
                              const std::int64_t* __restrict__ grouped, std::uint32_t pieces,
                              std::uint32_t rows, std::uint32_t* __restrict__ place) {
  if (const std::uint32_t row = thread_of_grid(); row < rows) {
    place[row] = place_of_arrived(row, arrived, grouped, pieces);
  }
}

}  // namespace

}  // namespace moevar::token_exchange
