#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "system/cuda.hpp"

/// token_exchange.hpp on a GPU. All pointers are to memory that the current GPU reads; rows are
/// bf16, row-major [rows, hidden], with an even hidden. Work is queued on the given stream, may be
/// recorded into a graph, and nothing is allocated after construction. A graph keeps the number of
/// rows that it was recorded with. Fastest where hidden is a multiple of 8 and arrays begin at
/// multiples of 16 bytes. Part of builds with CUDA.
namespace moevar::token_exchange {

/// Where every row of a device's tokens goes in slot order: Permutation, made and kept on the GPU.
class DevicePlan {
 public:
  /// Memory for up to `most_rows` = tokens × top_k rows, below 2^31, and for `slots` slots, at
  /// least one: 20 bytes a row and what the sort needs. Throws InputError, or EnvironmentError
  /// where memory is short.
  DevicePlan(std::size_t most_rows, std::size_t slots);

  /// Queues what plan() does, bit for bit: `slot_of_row` is [rows], each in [0, slots), which is
  /// not checked. Throws InputError where `rows` is over most_rows.
  void make(const std::int32_t* slot_of_row, std::size_t rows, const cuda::Stream& stream);

  /// Rows of the last make().
  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t slots() const noexcept { return rows_per_slot_.size(); }
  /// [tokens, top_k]: the row's place in slot order. The same pointer for the object's life.
  [[nodiscard]] const std::uint32_t* place() const noexcept { return place_.data(); }
  /// [slots]. The same pointer for the object's life.
  [[nodiscard]] const std::int64_t* rows_per_slot() const noexcept { return rows_per_slot_.data(); }

 private:
  std::size_t rows_ = 0;
  int key_bits_ = 0;                      ///< of a slot: what the sort has to look at
  cuda::DeviceArray<std::uint32_t> row_;  ///< 0, 1, 2, ...
  cuda::DeviceArray<std::uint32_t> sorted_slot_;
  cuda::DeviceArray<std::uint32_t> sorted_row_;  ///< the row that comes to a place
  cuda::DeviceArray<std::uint32_t> place_;
  cuda::DeviceArray<std::int64_t> rows_per_slot_;
  cuda::DeviceArray<std::byte> sort_memory_;
};

/// rows[place(t, k)] = x[t] for the rows of `plan`'s last make(), a multiple of top_k: `x` is
/// [tokens, hidden], `rows` [tokens × top_k, hidden]. Bytes: device_bytes().
void permute_cuda(std::size_t hidden, std::size_t top_k, const DevicePlan& plan, const BFloat16* x,
                  BFloat16* rows, const cuda::Stream& stream);

/// y[t] = Σ_k weights[t, k] rows[place(t, k)], summed in float in the order of k, rounded once:
/// `weights` is [tokens, top_k], `y` [tokens, hidden]. Bytes: device_bytes() and 8 a row; FLOPs:
/// flops().
void unpermute_cuda(std::size_t hidden, std::size_t top_k, const DevicePlan& plan,
                    const BFloat16* rows, const float* weights, BFloat16* y,
                    const cuda::Stream& stream);

/// How rows that came from several devices, each source's in slot order, come together by slot.
class DeviceGrouping {
 public:
  /// Memory for up to `most_rows` rows, below 2^31, from `sources` devices to `slots` slots, both
  /// at least one: 4 bytes a row, 16 a pair of source and slot. Throws as DevicePlan does.
  DeviceGrouping(std::size_t sources, std::size_t slots, std::size_t most_rows);

  /// Queues the work: `counts` is [sources, slots], on the GPU; `rows` is their sum, which the host
  /// knows, and which is not checked against them. Throws InputError where it is over most_rows.
  void make(const std::int64_t* counts, std::size_t rows, const cuda::Stream& stream);

  /// Rows of the last make().
  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t sources() const noexcept { return sources_; }
  [[nodiscard]] std::size_t slots() const noexcept { return rows_per_slot_.size(); }
  /// [rows]: the place in slot order of the row that arrived there. The same pointer for the
  /// object's life, as is the next.
  [[nodiscard]] const std::uint32_t* place() const noexcept { return place_.data(); }
  /// [slots]: the sum over the sources.
  [[nodiscard]] const std::int64_t* rows_per_slot() const noexcept { return rows_per_slot_.data(); }

 private:
  std::size_t rows_ = 0;
  std::size_t sources_ = 0;
  cuda::DeviceArray<std::int64_t> arrived_;  ///< [sources, slots]: a piece's first row, as it came
  cuda::DeviceArray<std::int64_t> grouped_;  ///< [sources, slots]: and in slot order
  cuda::DeviceArray<std::uint32_t> place_;
  cuda::DeviceArray<std::int64_t> rows_per_slot_;
};

/// group_cpu: `from` and `to` are [grouping.rows(), hidden] and do not overlap. Bytes: 4 × rows ×
/// hidden, and 4 a row.
void group_cuda(std::size_t hidden, const DeviceGrouping& grouping, const BFloat16* from,
                BFloat16* to, const cuda::Stream& stream);

/// The way back: undoes group_cuda. Bytes as there.
void ungroup_cuda(std::size_t hidden, const DeviceGrouping& grouping, const BFloat16* from,
                  BFloat16* to, const cuda::Stream& stream);

/// Bytes of bf16 rows that permute reads and writes, or unpermute: each row crosses once, the
/// tokens once.
constexpr double device_bytes(std::size_t hidden, std::size_t tokens, std::size_t top_k) noexcept {
  return 2.0 * static_cast<double>(hidden) * static_cast<double>(tokens) *
         static_cast<double>(top_k + 1);
}

}  // namespace moevar::token_exchange
