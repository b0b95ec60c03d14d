#pragma once

// The kernels of gating_cuda.cu; a test on the host includes tests/gpu/emulated_grid.hpp before it.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "gating/gating_lanes.hpp"

namespace moevar::gating {

namespace {

constexpr unsigned kThreads = 128;
constexpr unsigned kWarp = 0xFFFFFFFFU;

__device__ std::uint32_t token_of_warp() {
  return (blockIdx.x * blockDim.x + threadIdx.x) / kLanes;
}

/// exp(score - highest) over its sum, of the lanes that take part; `highest` is the same on all.
__device__ float softmax(float score, float highest, bool part) {
  const float power = part ? expf(score - highest) : 0.0F;
  float sum = power;
  for (unsigned step = kLanes / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(kWarp, sum, static_cast<int>(step));
  }
  return power / sum;
}

template <std::uint32_t kHeld>
__global__ void __launch_bounds__(kThreads)
    choose_top_k(std::uint32_t tokens, std::uint32_t experts, std::uint32_t top_k,
                 const float* __restrict__ scores, std::int32_t* __restrict__ ids,
                 float* __restrict__ weights) {
  const std::uint32_t token = token_of_warp();
  if (token >= tokens) {
    return;
  }
  const std::uint32_t lane = threadIdx.x % kLanes;
  LaneScores<kHeld> mine(scores + std::size_t{token} * experts, experts, lane);
  Candidate chosen;  // lane k's is the k-th
  std::uint32_t highest = 0;
  for (std::uint32_t k = 0; k < top_k; ++k) {
    const Candidate best = mine.best();
    const std::uint32_t key = __reduce_max_sync(kWarp, best.key);
    const std::uint32_t expert =
        __reduce_min_sync(kWarp, best.key == key ? best.expert : kNoExpert);
    mine.remove(expert);
    chosen = lane == k ? Candidate{key, expert} : chosen;
    highest = k == 0 ? key : highest;
  }
  const float weight = softmax(score_of(chosen.key), score_of(highest), lane < top_k);
  if (lane < top_k) {
    const std::size_t place = std::size_t{token} * top_k + lane;
    ids[place] = static_cast<std::int32_t>(chosen.expert);
    weights[place] = weight;
  }
}

__global__ void __launch_bounds__(kThreads)
    weigh(std::uint32_t tokens, std::uint32_t experts, std::uint32_t top_k,
          const float* __restrict__ scores, const std::int32_t* __restrict__ ids,
          float* __restrict__ weights) {
  const std::uint32_t token = token_of_warp();
  if (token >= tokens) {
    return;
  }
  const std::uint32_t lane = threadIdx.x % kLanes;
  const bool part = lane < top_k;
  const std::size_t place = std::size_t{token} * top_k + lane;
  const float score =
      part ? scores[std::size_t{token} * experts + static_cast<std::uint32_t>(ids[place])] : 0.0F;
  const std::uint32_t highest = __reduce_max_sync(kWarp, part ? key_of(score) : 0);
  const float weight = softmax(score, score_of(highest), part);
  if (part) {
    weights[place] = weight;
  }
}

}  // namespace

}  // namespace moevar::gating
