#pragma once

#include <cstdint>

/// Heats a device with the hottest ordinary work there is: a dense GEMM on random data, over and
/// over. What it computes is thrown away.
namespace moevar::burn {

/// Multiplies matrices of `size` × `size` floats on the calling thread's core until `seconds` have
/// passed, at least once; how many floating-point operations that were. 2 × size³ for each product,
/// so that the last one may run over by as long as one takes (a few milliseconds at 512).
std::int64_t burn_cpu(double seconds, int size = 512);

}  // namespace moevar::burn
