#pragma once

#include "system/cuda.hpp"

namespace moevar::cuda {

constexpr int kMostSms = 1024;

/// Launches `blocks` blocks that each take about `us` microseconds and count themselves in
/// counts[their SM]; `counts`: kMostSms ints in the GPU's memory.
void count_blocks_by_sm(int blocks, int us, int* counts, const Stream& stream);

}  // namespace moevar::cuda
