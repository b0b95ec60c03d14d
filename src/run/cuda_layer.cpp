#include "run/cuda_layer.hpp"

#include <algorithm>
#include <utility>

#include "device_clock/device_clock_cuda.hpp"
#include "fleet/device_weights.hpp"
#include "gating/gating_cuda.hpp"

namespace moevar::run {

namespace {

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }

}  // namespace

CudaLayer::CudaLayer(const study::ModelShape& model, const CudaLayerOptions& options,
                     fleet::CudaDevice& device)
    : device_(device),
      hidden_(size_of(model.hidden)),
      experts_(size_of(model.experts)),
      top_k_(size_of(model.top_k)),
      tokens_(size_of(options.tokens)),
      devices_(size_of(options.devices)),
      slots_(size_of(options.slots)),
      pairs_(devices_ * slots_),
      router_({hidden_, experts_, top_k_}, tokens_),
      plan_(tokens_ * top_k_, pairs_),
      routers_(size_of(options.layers) * experts_ * hidden_),
      x_(tokens_ * hidden_),
      scores_(tokens_ * experts_),
      weights_(tokens_ * top_k_),
      rows_(tokens_ * top_k_ * hidden_),
      outputs_(tokens_ * hidden_),
      expert_ids_(size_of(options.layers) * tokens_ * top_k_),
      slot_ids_(size_of(options.layers) * tokens_ * top_k_),
      rows_from_(size_of(options.layers) * pairs_) {
  for (int layer = 0; layer < options.layers; ++layer) {
    fleet::fill_router_cuda(options.seed, layer, experts_, hidden_,
                            routers_.data() + size_of(layer) * experts_ * hidden_, stream());
  }
  fleet::fill_activations_cuda(options.seed, std::int64_t{options.device} * options.tokens, tokens_,
                               hidden_, x_.data(), stream());
}

void CudaLayer::reserve(std::size_t received_rows) {
  device_.reserve(received_rows);
  if (received_rows <= room_) {
    return;
  }
  stream().synchronise();
  room_ = received_rows + received_rows / 4;
  grouping_.reset();
  grouping_.emplace(devices_, slots_, room_);
  for (auto* buffer : {&received_, &expert_in_, &expert_out_}) {
    *buffer = {};  // before the larger one comes
    *buffer = cuda::DeviceArray<BFloat16>(room_ * hidden_);
  }
}

void CudaLayer::take(std::vector<LaneRoute> routes) {
  routes_ = std::move(routes);
  reserve(static_cast<std::size_t>(most_received()));
  for (std::size_t layer = 0; layer < routes_.size(); ++layer) {
    const auto& route = routes_[layer];
    cuda::to_device(std::span<const std::int32_t>(route.experts),
                    expert_ids_.data() + layer * rows_per_layer(), stream());
    cuda::to_device(std::span<const std::int32_t>(route.slots),
                    slot_ids_.data() + layer * rows_per_layer(), stream());
    cuda::to_device(route.rows_from.flat(), rows_from_.data() + layer * pairs_, stream());
  }
  stream().synchronise();
}

void CudaLayer::stamp(std::size_t word) {
  if (stamps_ != nullptr) {
    device_clock::stamp(stamps_ + word, stream());
  }
}

void CudaLayer::enter() { stamp(0); }

void CudaLayer::send(int layer) {
  const std::size_t at = size_of(layer);
  router_.scores(tokens_, x_.data(), routers_.data() + at * experts_ * hidden_, scores_.data(),
                 stream());
  gating::softmax_cuda({hidden_, experts_, top_k_}, tokens_, scores_.data(),
                       expert_ids_.data() + at * rows_per_layer(), weights_.data(), stream());
  plan_.make(slot_ids_.data() + at * rows_per_layer(), rows_per_layer(), stream());
  token_exchange::permute_cuda(hidden_, top_k_, plan_, x_.data(), rows_.data(), stream());
}

exchange::DispatchLane CudaLayer::dispatch(int layer) {
  auto& route = routes_[size_of(layer)];
  return {.rows = rows_.data(),
          .rows_to = route.rows_to.flat(),
          .rows_from = route.rows_from.flat(),
          .received = received_.data(),
          .room = static_cast<std::int64_t>(room_),
          .stream = &stream()};
}

void CudaLayer::work(int layer) {
  const std::size_t at = size_of(layer);
  const auto& route = routes_[at];
  const auto received = static_cast<std::size_t>(route.received);
  grouping_->make(rows_from_.data() + at * pairs_, received, stream());
  token_exchange::group_cuda(hidden_, *grouping_, received_.data(), expert_in_.data(), stream());
  stamp(1 + 3 * at);
  device_.run_experts(layer, route.rows_per_slot, expert_in_.data(), expert_out_.data());
  stamp(2 + 3 * at);
  token_exchange::ungroup_cuda(hidden_, *grouping_, expert_out_.data(), received_.data(), stream());
}

exchange::CombineLane CudaLayer::combine() const {
  return {.results = received_.data(), .returned = rows_.data(), .stream = &stream()};
}

void CudaLayer::finish(int layer) {
  token_exchange::unpermute_cuda(hidden_, top_k_, plan_, rows_.data(), weights_.data(),
                                 outputs_.data(), stream());
  stamp(3 + 3 * size_of(layer));
}

std::int64_t CudaLayer::sent_rows() const noexcept {
  return static_cast<std::int64_t>(rows_per_layer());
}

std::int64_t CudaLayer::most_received() const noexcept {
  const auto most = std::ranges::max_element(routes_, {}, &LaneRoute::received);
  return most == routes_.end() ? 0 : most->received;
}

std::vector<float> CudaLayer::outputs() const {
  std::vector<BFloat16> raw(outputs_.size());
  cuda::to_host(outputs_.data(), std::span(raw), stream());
  stream().synchronise();
  std::vector<float> values(raw.size());
  std::ranges::transform(raw, values.begin(), &BFloat16::value);
  return values;
}

}  // namespace moevar::run
