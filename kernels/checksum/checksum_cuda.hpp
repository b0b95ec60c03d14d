#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "system/cuda.hpp"

/// Part of builds with CUDA.
namespace moevar::checksum {

/// *sum becomes sum_cpu() of the values; both lie in the current GPU's memory. Queued, may be
/// captured. Reads 2 × count bytes; values at a multiple of 16 bytes are read fastest.
void sum_cuda(const BFloat16* values, std::size_t count, std::uint64_t* sum,
              const cuda::Stream& stream);

}  // namespace moevar::checksum
