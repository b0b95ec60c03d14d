#include "run/cpu_layer.hpp"

#include <algorithm>

#include "fleet/expert_weights.hpp"
#include "timeline/clock.hpp"

namespace moevar::run {

namespace {

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }

}  // namespace

CpuLayer::CpuLayer(const mpi::Communicator& devices, const study::ModelShape& model,
                   std::uint64_t seed, int layers, int tokens_per_device, int slots_per_device)
    : hidden_(size_of(model.hidden)),
      top_k_(size_of(model.top_k)),
      slots_(size_of(slots_per_device)),
      gate_{hidden_, size_of(model.experts), top_k_},
      exchange_(devices, hidden_, slots_),
      permutation_(size_of(tokens_per_device) * top_k_, slots_ * size_of(devices.size())),
      routers_({size_of(layers), gate_.experts, hidden_}),
      x_(size_of(tokens_per_device) * hidden_),
      scores_(size_of(tokens_per_device) * gate_.experts),
      weights_(size_of(tokens_per_device) * top_k_),
      rows_(weights_.size() * hidden_),
      outputs_(x_.size()),
      rows_from_(permutation_.rows_per_slot.size()),
      rows_per_slot_(slots_),
      next_(slots_) {
  for (int layer = 0; layer < layers; ++layer) {
    fleet::fill_router(seed, layer, hidden_, routers_.row(layer));
  }
  fleet::fill_activations(seed, std::int64_t{devices.rank()} * tokens_per_device, hidden_, x_);
}

std::size_t CpuLayer::bytes(const study::ModelShape& model, int layers, int tokens_per_device) {
  const std::size_t hidden = size_of(model.hidden);
  const std::size_t experts = size_of(model.experts);
  const std::size_t token = hidden * (2 + size_of(model.top_k)) + experts + size_of(model.top_k);
  return sizeof(float) * (size_of(layers) * experts * hidden + size_of(tokens_per_device) * token);
}

void CpuLayer::reserve(std::int64_t received_rows) {
  const std::size_t size = static_cast<std::size_t>(received_rows) * hidden_;
  for (auto* buffer : {&received_, &expert_in_, &expert_out_}) {
    if (buffer->size() < size) {
      buffer->resize(size);
    }
  }
}

LayerStamps CpuLayer::run(int layer, std::span<const std::int32_t> experts,
                          std::span<const std::int32_t> slots, fleet::CpuDevice& device) {
  const auto x = std::span(x_).first(experts.size() / top_k_ * hidden_);
  gating::scores_cpu(gate_, x, routers_.row(layer), scores_);
  gating::softmax_cpu(gate_, scores_, experts, weights_);
  token_exchange::plan(slots, permutation_);
  token_exchange::permute_cpu(hidden_, top_k_, permutation_, x, rows_);
  const std::int64_t received =
      exchange_.dispatch(rows_, permutation_.rows_per_slot, rows_from_, received_);
  token_exchange::group_cpu(hidden_, rows_from_, next_, received_, expert_in_);
  std::ranges::fill(rows_per_slot_, 0);
  for (std::size_t i = 0; i < rows_from_.size(); ++i) {
    rows_per_slot_[i % slots_] += rows_from_[i];
  }

  LayerStamps stamps;
  stamps.tokens = static_cast<std::uint32_t>(received);
  stamps.dispatched = timeline::monotonic_raw_ns();
  device.run_experts(layer, rows_per_slot_, expert_in_, expert_out_);
  stamps.arrived = timeline::monotonic_raw_ns();

  token_exchange::ungroup_cpu(hidden_, rows_from_, next_, expert_out_, received_);
  exchange_.combine(received_, rows_);
  token_exchange::unpermute_cpu(hidden_, top_k_, permutation_, rows_, weights_, outputs_);
  stamps.exited = timeline::monotonic_raw_ns();
  return stamps;
}

}  // namespace moevar::run
