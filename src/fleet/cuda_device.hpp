#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "expert_ffn/expert_ffn_cuda.hpp"
#include "fleet/slot_table.hpp"
#include "system/cuda.hpp"

namespace moevar::fleet {

struct CudaDeviceOptions {
  expert_ffn::Precision precision = expert_ffn::Precision::bf16;
  std::uint64_t seed = 0;
  int layers = 0;
  int slots = 0;              ///< of a layer
  std::size_t most_rows = 0;  ///< that its experts receive in one layer call, until reserve()
  int sm_limit = 0;           ///< streaming multiprocessors of `stream`, 0: all of the GPU's
};

/// A GPU, or a part of one, as a device: holds its slots' expert weights and runs them. Made and
/// used with its GPU current. Part of builds with CUDA.
class CudaDevice {
 public:
  /// One expert's weights, as expert_ffn::to_slot makes them.
  using Weights = cuda::DeviceArray<std::byte>;
  using Slots = SlotTable<Weights>;

  /// `stream` outlives the object. Throws EnvironmentError where memory does not suffice, or the
  /// kernels cannot be had on this GPU; InputError for sizes that they do not take.
  CudaDevice(const expert_ffn::Shape& shape, const CudaDeviceOptions& options,
             const cuda::Stream& stream);

  [[nodiscard]] const expert_ffn::Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] const cuda::Stream& stream() const noexcept { return stream_; }
  [[nodiscard]] Slots& slots() noexcept { return slots_; }
  [[nodiscard]] const Slots& slots() const noexcept { return slots_; }
  [[nodiscard]] std::size_t expert_bytes() const noexcept {
    return expert_ffn::slot_bytes(shape_, options_.precision);
  }

  /// Makes the weights of a layer's experts, one a slot, in place of what was there. Queued.
  void load(int layer, std::span<const std::int32_t> experts);

  /// Memory for an expert that is on its way here.
  [[nodiscard]] std::shared_ptr<Weights> take_spare();

  /// Queues making one expert's weights anew in `weights`: what they must be.
  void make(int layer, std::int32_t expert, Weights& weights);

  /// Of what all of that queued before has made of `weights`. Waits for the GPU.
  [[nodiscard]] std::uint64_t checksum_of(const Weights& weights);
  /// What checksum_of() must give of an expert's. Waits for the GPU; takes a spare's memory.
  [[nodiscard]] std::uint64_t expected_checksum(int layer, std::int32_t expert);

  /// Times the kernels' variants on this device's own weights for up to `rows_per_slot` rows each,
  /// and keeps the fastest. All slots are loaded.
  void tune(std::size_t rows_per_slot);
  [[nodiscard]] std::string chosen(std::size_t rows_per_slot) const {
    return engine_.chosen(rows_per_slot);
  }

  /// Makes room for `rows` rows in one layer call, and some more; waits for the GPU where there is
  /// less.
  void reserve(std::size_t rows);

  /// Queues a layer's experts: `rows_per_slot` rows for every slot, one after the other in `x`,
  /// give as many in `y`, both [rows, hidden]. Allocates nothing, waits for nothing.
  void run_experts(int layer, std::span<const std::int64_t> rows_per_slot, const BFloat16* x,
                   BFloat16* y);

 private:
  expert_ffn::Shape shape_;
  CudaDeviceOptions options_;
  const cuda::Stream& stream_;
  Slots slots_;
  cuda::DeviceArray<BFloat16> plain_;     ///< an expert before to_slot
  cuda::DeviceArray<std::uint64_t> sum_;  ///< one
  expert_ffn::DeviceExperts engine_;
  std::vector<expert_ffn::DeviceGroup> groups_;
  std::size_t tuned_for_ = 0;  ///< rows a slot, 0: not tuned
};

}  // namespace moevar::fleet
