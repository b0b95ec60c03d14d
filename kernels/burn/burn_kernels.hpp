#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "system/cuda.hpp"

namespace moevar::burn {

/// Queues matrix[i] = a standard normal number that depends on `key` and i alone.
void fill_with_normals(std::uint64_t key, BFloat16* matrix, std::size_t count,
                       const cuda::Stream& stream);

}  // namespace moevar::burn
