#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/bfloat16.hpp"
#include "base/tensor.hpp"
#include "exchange/device_exchange.hpp"
#include "fleet/cuda_device.hpp"
#include "gating/router_cuda.hpp"
#include "run/lane_route.hpp"
#include "study/study.hpp"
#include "system/cuda.hpp"
#include "token_exchange/token_exchange_cuda.hpp"

namespace moevar::run {

struct CudaLayerOptions {
  std::uint64_t seed = 0;
  DeviceId device = 0;
  int devices = 0;
  int layers = 0;
  int tokens = 0;  ///< of the device
  int slots = 0;   ///< of a device
  int sm_limit = 0;
};

/// The MoE layers of one GPU, or a part of one: gate → dispatch → experts → combine, in three parts
/// between which an exchange works. All of them only queue work on the device's stream. Every layer
/// works on the same activations of the device's own tokens. Part of builds with CUDA.
class CudaLayer {
 public:
  /// `device` outlives the object. Throws as CudaDevice does.
  CudaLayer(const study::ModelShape& model, const CudaLayerOptions& options,
            fleet::CudaDevice& device);

  /// What a step works through, [layers]: makes room for it, brings it to the GPU and waits until
  /// it is there.
  void take(std::vector<LaneRoute> routes);

  /// Where the stamps of the next step go, [1 + 3 × layers] words of the GPU's memory: the step's
  /// entry, then for each layer when its tokens were there, its experts were done, its outputs
  /// were. nullptr: nowhere.
  void stamp_to(std::uint64_t* words) noexcept { stamps_ = words; }

  void enter();
  /// Gate and permute: rows to send.
  void send(int layer);
  [[nodiscard]] exchange::DispatchLane dispatch(int layer);
  /// Group, experts, ungroup: rows to send back.
  void work(int layer);
  [[nodiscard]] exchange::CombineLane combine() const;
  /// Unpermute: the outputs.
  void finish(int layer);

  [[nodiscard]] std::int64_t sent_rows() const noexcept;
  /// In the layer with most.
  [[nodiscard]] std::int64_t most_received() const noexcept;
  [[nodiscard]] const LaneRoute& route(int layer) const {
    return routes_[static_cast<std::size_t>(layer)];
  }
  [[nodiscard]] const cuda::Stream& stream() const noexcept { return device_.stream(); }
  [[nodiscard]] fleet::CudaDevice& device() noexcept { return device_; }

  /// What the latest finish() gave, [tokens][hidden]. Waits for the GPU.
  [[nodiscard]] std::vector<float> outputs() const;

 private:
  void reserve(std::size_t received_rows);
  void stamp(std::size_t word);
  [[nodiscard]] std::size_t rows_per_layer() const noexcept { return tokens_ * top_k_; }

  fleet::CudaDevice& device_;
  std::size_t hidden_;
  std::size_t experts_;
  std::size_t top_k_;
  std::size_t tokens_;
  std::size_t devices_;
  std::size_t slots_;
  std::size_t pairs_;  ///< devices × slots
  std::vector<LaneRoute> routes_;
  std::uint64_t* stamps_ = nullptr;

  gating::Router router_;
  token_exchange::DevicePlan plan_;
  std::optional<token_exchange::DeviceGrouping> grouping_;
  std::size_t room_ = 0;  ///< rows that can be received

  cuda::DeviceArray<BFloat16> routers_;    ///< [layers][experts][hidden]
  cuda::DeviceArray<BFloat16> x_;          ///< [tokens][hidden]
  cuda::DeviceArray<float> scores_;        ///< [tokens][experts]
  cuda::DeviceArray<float> weights_;       ///< [tokens][top_k]
  cuda::DeviceArray<BFloat16> rows_;       ///< [tokens × top_k][hidden], on the way out and back
  cuda::DeviceArray<BFloat16> outputs_;    ///< [tokens][hidden]
  cuda::DeviceArray<BFloat16> received_;   ///< [room][hidden], by source and slot
  cuda::DeviceArray<BFloat16> expert_in_;  ///< [room][hidden], by slot
  cuda::DeviceArray<BFloat16> expert_out_;
  cuda::DeviceArray<std::int32_t> expert_ids_;  ///< [layers][tokens × top_k]
  cuda::DeviceArray<std::int32_t> slot_ids_;    ///< [layers][tokens × top_k]
  cuda::DeviceArray<std::int64_t> rows_from_;   ///< [layers][devices][slots]
};

}  // namespace moevar::run
