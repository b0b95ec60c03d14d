#pragma once

#include <cstdint>

#include "system/cuda.hpp"

/// The kernels of one thread behind device_clock_cuda.hpp: what is queued, and nothing more.
namespace moevar::device_clock {

/// *word = the GPU's time.
void launch_stamp(std::uint64_t* word, cudaStream_t stream);

/// *smallest = the smallest difference of two readings seen in `for_ns`; all bits set: none.
void launch_find_step(std::uint64_t for_ns, std::uint64_t* smallest, cudaStream_t stream);

/// For round 1 to `rounds`: waits until *question is at least the round, and writes the GPU's time
/// to answers[round - 1]. Ends early `patience_ns` after it began. Both in pinned memory.
void launch_answers(const std::uint32_t* question, std::uint32_t rounds, std::uint64_t patience_ns,
                    std::uint64_t* answers, cudaStream_t stream);

}  // namespace moevar::device_clock
