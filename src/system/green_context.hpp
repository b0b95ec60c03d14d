#pragma once

#include <span>
#include <utility>
#include <vector>

#include "system/cuda.hpp"

struct CUgreenCtx_st;

/// Parts of a GPU, through CUDA's green contexts (driver of CUDA 12.4 or later; no administrator's
/// rights). Memory, its bandwidth, the L2, power and clock stay common to all parts. Part of builds
/// with CUDA.
namespace moevar::cuda {

/// Some SMs of a GPU that nobody else of this process's green contexts runs on.
class GreenContext {
 public:
  explicit GreenContext(CUgreenCtx_st* context) noexcept : context_(context) {}
  ~GreenContext();
  GreenContext(GreenContext&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
  GreenContext& operator=(GreenContext&& other) noexcept {
    std::swap(context_, other.context_);
    return *this;
  }
  GreenContext(const GreenContext&) = delete;
  GreenContext& operator=(const GreenContext&) = delete;

  [[nodiscard]] CUgreenCtx_st* raw() const noexcept { return context_; }

 private:
  CUgreenCtx_st* context_;
};

/// A part: kernels launched on its stream stay on its SMs. Work on any other stream may run on all
/// SMs of the GPU, these too.
struct Partition {
  int sms = 0;           ///< as many as were wanted, or more: the driver gives them in groups
  GreenContext context;  ///< outlives the stream
  Stream stream;
};

/// Splits the current GPU into parts with at least so many SMs each, none in common. On compute
/// capability 9.0 SMs come in groups of 8. Throws InputError where a part wants none,
/// EnvironmentError that says what there is where the GPU has not enough SMs, or its driver no
/// green contexts.
std::vector<Partition> split(std::span<const int> sms);

/// Another stream of a part, which outlives it: Stream::urgent() for it.
Stream urgent_stream(const Partition& part);

}  // namespace moevar::cuda
