#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/bfloat16.hpp"
#include "base/tensor.hpp"
#include "exchange/device_exchange.hpp"
#include "fleet/cuda_device.hpp"
#include "gating/router_cuda.hpp"
#include "run/lane_route.hpp"
#include "run/layer_schedule.hpp"
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
  std::size_t batches = 1;  ///< of a step's tokens, at most
  /// Where rows travel, if there are several batches; outlives the layer.
  const cuda::Stream* exchange_stream = nullptr;
};

/// The MoE layers of one GPU, or a part of one: gate → dispatch → experts → combine, in parts
/// between which an exchange works, with the device's tokens in one batch or several. All of them
/// only queue work, in the order of layer_schedule(). Every layer works on the same activations of
/// the device's own tokens. Several batches take about as much memory as one: what experts read and
/// write is theirs in turn. Part of builds with CUDA.
class CudaLayer {
 public:
  /// `device` outlives the object. Throws as CudaDevice does.
  CudaLayer(const study::ModelShape& model, const CudaLayerOptions& options,
            fleet::CudaDevice& device);

  /// What a step works through, [batches][layers]: makes room for it, brings it to the GPU and
  /// waits until it is there.
  void take(std::vector<std::vector<LaneRoute>> routes);

  /// Where the stamps of the next step go, [1 + 3 × layers] words of the GPU's memory: the step's
  /// entry, then for each layer when the first batch's tokens were there, the last batch's experts
  /// were done, its outputs were. nullptr: nowhere.
  void stamp_to(std::uint64_t* words) noexcept { stamps_ = words; }

  void enter();
  /// A part that the device computes: send, work or finish.
  void compute(const LayerOperation& operation, int layer);
  /// What an exchange needs for a dispatch, or a combine; what it then queues comes after what the
  /// operation has to wait for. exchanged() follows once it is queued.
  [[nodiscard]] exchange::DispatchLane dispatch(const LayerOperation& operation, int layer);
  [[nodiscard]] exchange::CombineLane combine(const LayerOperation& operation);
  void exchanged(const LayerOperation& operation) const { mark(operation); }

  [[nodiscard]] std::int64_t sent_rows(std::size_t batch) const noexcept;
  /// In the layer with most.
  [[nodiscard]] std::int64_t most_received(std::size_t batch) const noexcept;
  /// Rows that come to the device's experts in a layer, of all batches.
  [[nodiscard]] std::int64_t received(int layer) const noexcept;
  /// Of the device's own tokens, [tokens][top_k].
  [[nodiscard]] std::vector<std::int32_t> token_experts(int layer) const;
  [[nodiscard]] const cuda::Stream& stream() const noexcept { return device_.stream(); }
  [[nodiscard]] fleet::CudaDevice& device() noexcept { return device_; }

  /// What the latest layer gave, [tokens][hidden]. Waits for the GPU.
  [[nodiscard]] std::vector<float> outputs() const;

 private:
  /// Some of the device's tokens, and what is theirs from their gate to their outputs.
  struct Batch {
    Batch(const TokenRange& range, std::size_t layers, std::size_t hidden, std::size_t top_k,
          std::size_t pairs);

    TokenRange tokens;
    std::vector<LaneRoute> routes;  ///< [layers]
    std::size_t room = 0;           ///< rows that can be received
    token_exchange::DevicePlan plan;
    cuda::DeviceArray<float> weights;            ///< [tokens][top_k]
    cuda::DeviceArray<BFloat16> rows;            ///< [tokens × top_k][hidden], out and back
    cuda::DeviceArray<BFloat16> received;        ///< [room][hidden], by source and slot
    cuda::DeviceArray<std::int32_t> expert_ids;  ///< [layers][tokens × top_k]
    cuda::DeviceArray<std::int32_t> slot_ids;    ///< [layers][tokens × top_k]
    cuda::DeviceArray<std::int64_t> rows_from;   ///< [layers][devices][slots]
    std::vector<cuda::Event> over;  ///< [parts]: where the latest one ended; with several batches
  };

  void reserve();
  void stamp(std::size_t word);
  void send(Batch& batch, std::size_t layer);
  void work(const Batch& batch, std::size_t layer);
  void finish(const Batch& batch);
  [[nodiscard]] const cuda::Stream& stream_of(Queue queue) const noexcept;
  /// The operation's queue waits for what comes before it in the other one.
  void hold(const LayerOperation& operation) const;
  /// It is queued: the other queue can wait for it.
  void mark(const LayerOperation& operation) const;
  [[nodiscard]] std::size_t rows_of(const Batch& batch) const noexcept {
    return batch.tokens.count * top_k_;
  }

  fleet::CudaDevice& device_;
  const cuda::Stream* exchange_stream_;
  std::size_t hidden_;
  std::size_t experts_;
  std::size_t top_k_;
  std::size_t tokens_;
  std::size_t devices_;
  std::size_t slots_;
  std::size_t pairs_;  ///< devices × slots
  std::vector<Batch> batches_;
  std::uint64_t* stamps_ = nullptr;

  // used by one batch after the other, in the order of the device's stream
  gating::Router router_;
  std::optional<token_exchange::DeviceGrouping> grouping_;
  std::size_t room_ = 0;                   ///< rows of the batch that gets most
  cuda::DeviceArray<BFloat16> expert_in_;  ///< [room][hidden], by slot
  cuda::DeviceArray<BFloat16> expert_out_;
  cuda::DeviceArray<float> scores_;  ///< [tokens of a batch][experts]

  cuda::DeviceArray<BFloat16> routers_;  ///< [layers][experts][hidden]
  cuda::DeviceArray<BFloat16> x_;        ///< [tokens][hidden]
  cuda::DeviceArray<BFloat16> outputs_;  ///< [tokens][hidden]
};

/// An exchange for each batch, as several dispatches are under way at once: [batches]. They may
/// have their connections in common.
using BatchExchanges = std::vector<std::unique_ptr<exchange::DeviceExchange>>;

/// Queues a layer on all of a rank's devices, in the order of layer_schedule(). Collective over the
/// exchanges' ranks.
void queue_layer(std::span<const LayerOperation> schedule, int layer,
                 std::span<CudaLayer* const> devices, const BatchExchanges& exchanges);

}  // namespace moevar::run
