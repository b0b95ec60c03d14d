#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "expert_ffn/expert_ffn.hpp"
#include "system/cublas_lt.hpp"
#include "system/cuda.hpp"

namespace moevar::expert_ffn {

/// Where products of cuBLASLt can run beside each other: the caller's stream and others that wait
/// for it and that it waits for.
class CublasLanes {
 public:
  /// `lanes` of them, 1 or more. Throws EnvironmentError where cuBLASLt is not there.
  explicit CublasLanes(std::size_t lanes);

  [[nodiscard]] std::size_t size() const noexcept { return handles_.size(); }
  [[nodiscard]] cublas_lt::Handle& handle(std::size_t lane) { return handles_[lane]; }
  [[nodiscard]] const cuda::Stream& stream(std::size_t lane, const cuda::Stream& callers) const {
    return lane == 0 ? callers : streams_[lane - 1];
  }
  /// The first `lanes` lanes begin after, and end before, what follows in the caller's stream.
  void fork(std::size_t lanes, const cuda::Stream& callers) const;
  void join(std::size_t lanes, const cuda::Stream& callers) const;

 private:
  std::vector<cublas_lt::Handle> handles_;
  std::vector<cuda::Stream> streams_;
  std::vector<cuda::Event> ends_;
  cuda::Event start_;
};

/// One expert's part in a product of all: out[rows, columns] = a[rows, depth] b[columns, depth]^T.
struct LoopGroup {
  std::size_t rows = 0;  ///< 1 or more
  cublas_lt::Operands operands;
};

/// A product of all experts by cuBLASLt, expert by expert.
class CublasLoop {
 public:
  CublasLoop(CublasLanes& lanes, std::size_t columns, std::size_t depth, Precision precision,
             int sm_limit);

  /// Queues the products on `lanes` lanes.
  void run(std::span<const LoopGroup> groups, std::size_t lanes, const cuda::Stream& stream);
  /// Times the library's algorithms for a group, and takes the fastest where the rows are about as
  /// many. Waits for the GPU.
  void tune(const LoopGroup& group, const cuda::Stream& stream);

 private:
  /// With the algorithms for about so many rows, on one lane.
  cublas_lt::Gemm& gemm(std::size_t rows, std::size_t lane);
  void multiply(const LoopGroup& group, std::size_t lane, const cuda::Stream& stream);

  CublasLanes* lanes_;
  cublas_lt::Product product_;
  int sm_limit_;
  std::map<std::size_t, std::size_t> chosen_;  ///< algorithm of a size that was timed
  std::vector<std::map<std::size_t, cublas_lt::Gemm>> gemms_;  ///< [lane], by size
  std::vector<std::map<std::size_t, cublas_lt::Gemm>> exact_;  ///< [lane], by rows
};

/// The next of 16, 24, 32, 48, 64, 96, ... that is not below `rows`: algorithms are proposed for
/// these alone, since asking for them costs some ten microseconds.
std::size_t size_of_rows(std::size_t rows) noexcept;

}  // namespace moevar::expert_ffn
