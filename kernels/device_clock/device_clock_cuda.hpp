#pragma once

#include <cstdint>

#include "device_clock/device_clock.hpp"
#include "system/cuda.hpp"

/// Reads the current GPU's `%globaltimer`: nanoseconds of 64 bits, in steps that depend on the GPU
/// and its driver. Part of builds with CUDA.
namespace moevar::device_clock {

/// Queues a kernel of one thread that writes the GPU's time to `word`, in device or pinned memory.
/// Its own cost is a launch, 2 to 3 µs between two kernels of a stream. Capturable.
void stamp(std::uint64_t* word, const cuda::Stream& stream);

/// What a stamp() among others takes of `stream`'s time, nanoseconds. Waits for `stream`; not while
/// recording a graph.
double stamp_cost_ns(const cuda::Stream& stream);

/// Calibrates the current GPU's clock to the host's. Made once, with the memory it needs.
class Calibrator {
 public:
  /// Measures the clock's step: the smallest difference between two readings that one thread saw
  /// over some milliseconds. Waits for `stream`.
  explicit Calibrator(const cuda::Stream& stream, int rounds = 256);

  /// The smallest step seen, nanoseconds.
  [[nodiscard]] Nanoseconds step_ns() const noexcept { return step_ns_; }

  /// A kernel of one thread waits for the host's questions in pinned memory and answers each with
  /// its time: `rounds` exchanges of a few microseconds on the GPU's bus. Waits for what was queued
  /// on `stream` before, returns when the kernel is over; not while recording a graph. Throws
  /// EnvironmentError where the GPU does not answer within a second (a debugger that makes launches
  /// wait, a GPU that others hold).
  Offset calibrate(const cuda::Stream& stream, const HostClock& now);

 private:
  cuda::PinnedArray<std::uint64_t> answers_;   ///< one a round; 0: not yet
  cuda::PinnedArray<std::uint32_t> question_;  ///< the round that is asked for, from 1
  Nanoseconds step_ns_ = 0;
};

}  // namespace moevar::device_clock
