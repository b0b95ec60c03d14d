#include "run/cuda_layer.hpp"

#include <algorithm>
#include <utility>

#include "device_clock/device_clock_cuda.hpp"
#include "fleet/device_weights.hpp"
#include "gating/gating_cuda.hpp"

namespace moevar::run {

namespace {

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }
std::size_t size_of(LayerPart part) { return static_cast<std::size_t>(part); }

}  // namespace

CudaLayer::Batch::Batch(const TokenRange& range, std::size_t layers, std::size_t hidden,
                        std::size_t top_k, std::size_t pairs)
    : tokens(range),
      plan(range.count * top_k, pairs),
      weights(range.count * top_k),
      rows(range.count * top_k * hidden),
      expert_ids(layers * range.count * top_k),
      slot_ids(layers * range.count * top_k),
      rows_from(layers * pairs) {}

CudaLayer::CudaLayer(const study::ModelShape& model, const CudaLayerOptions& options,
                     fleet::CudaDevice& device)
    : device_(device),
      exchange_stream_(options.exchange_stream),
      hidden_(size_of(model.hidden)),
      experts_(size_of(model.experts)),
      top_k_(size_of(model.top_k)),
      tokens_(size_of(options.tokens)),
      devices_(size_of(options.devices)),
      slots_(size_of(options.slots)),
      pairs_(devices_ * slots_),
      router_({hidden_, experts_, top_k_}, batches_of(tokens_, options.batches).front().count),
      scores_(batches_of(tokens_, options.batches).front().count * experts_),
      routers_(size_of(options.layers) * experts_ * hidden_),
      x_(tokens_ * hidden_),
      outputs_(tokens_ * hidden_) {
  const auto ranges = batches_of(tokens_, options.batches);
  batches_.reserve(ranges.size());
  for (const auto& range : ranges) {
    auto& batch = batches_.emplace_back(range, size_of(options.layers), hidden_, top_k_, pairs_);
    for (std::size_t part = 0; ranges.size() > 1 && part < size_of(LayerPart::count); ++part) {
      batch.over.push_back(cuda::Event::without_time());
    }
  }
  for (int layer = 0; layer < options.layers; ++layer) {
    fleet::fill_router_cuda(options.seed, layer, experts_, hidden_,
                            routers_.data() + size_of(layer) * experts_ * hidden_, stream());
  }
  fleet::fill_activations_cuda(options.seed, std::int64_t{options.device} * options.tokens, tokens_,
                               hidden_, x_.data(), stream());
}

void CudaLayer::reserve() {
  std::size_t most = 0;
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    const auto rows = static_cast<std::size_t>(most_received(i));
    most = std::max(most, rows);
    if (rows > batches_[i].room) {
      stream().synchronise();
      batches_[i].room = rows + rows / 4;
      batches_[i].received = {};  // before the larger one comes
      batches_[i].received = cuda::DeviceArray<BFloat16>(batches_[i].room * hidden_);
    }
  }
  device_.reserve(most);
  if (most <= room_) {
    return;
  }
  stream().synchronise();
  room_ = most + most / 4;
  grouping_.reset();
  grouping_.emplace(devices_, slots_, room_);
  for (auto* buffer : {&expert_in_, &expert_out_}) {
    *buffer = {};
    *buffer = cuda::DeviceArray<BFloat16>(room_ * hidden_);
  }
}

void CudaLayer::take(std::vector<std::vector<LaneRoute>> routes) {
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    batches_[i].routes = std::move(routes[i]);
  }
  reserve();
  for (const auto& batch : batches_) {
    for (std::size_t layer = 0; layer < batch.routes.size(); ++layer) {
      const auto& route = batch.routes[layer];
      cuda::to_device(std::span<const std::int32_t>(route.experts),
                      batch.expert_ids.data() + layer * rows_of(batch), stream());
      cuda::to_device(std::span<const std::int32_t>(route.slots),
                      batch.slot_ids.data() + layer * rows_of(batch), stream());
      cuda::to_device(route.rows_from.flat(), batch.rows_from.data() + layer * pairs_, stream());
    }
  }
  stream().synchronise();
}

const cuda::Stream& CudaLayer::stream_of(Queue queue) const noexcept {
  return queue == Queue::exchange ? *exchange_stream_ : stream();
}

void CudaLayer::hold(const LayerOperation& operation) const {
  if (operation.after) {
    batches_[operation.batch].over[size_of(*operation.after)].hold(stream_of(operation.queue));
  }
}

void CudaLayer::mark(const LayerOperation& operation) const {
  if (operation.awaited) {
    batches_[operation.batch].over[size_of(operation.part)].record(stream_of(operation.queue));
  }
}

void CudaLayer::stamp(std::size_t word) {
  if (stamps_ != nullptr) {
    device_clock::stamp(stamps_ + word, stream());
  }
}

void CudaLayer::enter() { stamp(0); }

void CudaLayer::compute(const LayerOperation& operation, int layer) {
  const std::size_t at = size_of(layer);
  Batch& batch = batches_[operation.batch];
  hold(operation);
  if (operation.part == LayerPart::send) {
    send(batch, at);
  } else if (operation.part == LayerPart::work) {
    work(batch, at);
  } else {
    finish(batch);
    if (operation.batch + 1 == batches_.size()) {
      stamp(3 + 3 * at);
    }
  }
  mark(operation);
}

void CudaLayer::send(Batch& batch, std::size_t layer) {
  const gating::Shape shape{hidden_, experts_, top_k_};
  const std::size_t tokens = batch.tokens.count;
  const BFloat16* x = x_.data() + batch.tokens.first * hidden_;
  router_.scores(tokens, x, routers_.data() + layer * experts_ * hidden_, scores_.data(), stream());
  gating::softmax_cuda(shape, tokens, scores_.data(),
                       batch.expert_ids.data() + layer * rows_of(batch), batch.weights.data(),
                       stream());
  batch.plan.make(batch.slot_ids.data() + layer * rows_of(batch), rows_of(batch), stream());
  token_exchange::permute_cuda(hidden_, top_k_, batch.plan, x, batch.rows.data(), stream());
}

exchange::DispatchLane CudaLayer::dispatch(const LayerOperation& operation, int layer) {
  auto& batch = batches_[operation.batch];
  auto& route = batch.routes[size_of(layer)];
  hold(operation);
  return {.rows = batch.rows.data(),
          .rows_to = route.rows_to.flat(),
          .rows_from = route.rows_from.flat(),
          .received = batch.received.data(),
          .room = static_cast<std::int64_t>(batch.room),
          .stream = &stream_of(operation.queue)};
}

void CudaLayer::work(const Batch& batch, std::size_t layer) {
  const auto& route = batch.routes[layer];
  grouping_->make(batch.rows_from.data() + layer * pairs_, static_cast<std::size_t>(route.received),
                  stream());
  token_exchange::group_cuda(hidden_, *grouping_, batch.received.data(), expert_in_.data(),
                             stream());
  if (&batch == &batches_.front()) {
    stamp(1 + 3 * layer);
  }
  device_.run_experts(static_cast<int>(layer), route.rows_per_slot, expert_in_.data(),
                      expert_out_.data());
  if (&batch == &batches_.back()) {
    stamp(2 + 3 * layer);
  }
  token_exchange::ungroup_cuda(hidden_, *grouping_, expert_out_.data(), batch.received.data(),
                               stream());
}

exchange::CombineLane CudaLayer::combine(const LayerOperation& operation) {
  const auto& batch = batches_[operation.batch];
  hold(operation);
  return {.results = batch.received.data(),
          .returned = batch.rows.data(),
          .stream = &stream_of(operation.queue)};
}

void CudaLayer::finish(const Batch& batch) {
  token_exchange::unpermute_cuda(hidden_, top_k_, batch.plan, batch.rows.data(),
                                 batch.weights.data(),
                                 outputs_.data() + batch.tokens.first * hidden_, stream());
}

std::int64_t CudaLayer::sent_rows(std::size_t batch) const noexcept {
  return static_cast<std::int64_t>(rows_of(batches_[batch]));
}

std::int64_t CudaLayer::most_received(std::size_t batch) const noexcept {
  const auto& routes = batches_[batch].routes;
  const auto most = std::ranges::max_element(routes, {}, &LaneRoute::received);
  return most == routes.end() ? 0 : most->received;
}

std::int64_t CudaLayer::received(int layer) const noexcept {
  std::int64_t rows = 0;
  for (const auto& batch : batches_) {
    rows += batch.routes[size_of(layer)].received;
  }
  return rows;
}

std::vector<std::int32_t> CudaLayer::token_experts(int layer) const {
  std::vector<std::int32_t> experts;
  experts.reserve(tokens_ * top_k_);
  for (const auto& batch : batches_) {
    const auto& here = batch.routes[size_of(layer)].experts;
    experts.insert(experts.end(), here.begin(), here.end());
  }
  return experts;
}

std::vector<float> CudaLayer::outputs() const {
  std::vector<BFloat16> raw(outputs_.size());
  cuda::to_host(outputs_.data(), std::span(raw), stream());
  stream().synchronise();
  std::vector<float> values(raw.size());
  std::ranges::transform(raw, values.begin(), &BFloat16::value);
  return values;
}

void queue_layer(std::span<const LayerOperation> schedule, int layer,
                 std::span<CudaLayer* const> devices, const BatchExchanges& exchanges) {
  std::vector<exchange::DispatchLane> out;
  std::vector<exchange::CombineLane> back;
  out.reserve(devices.size());
  back.reserve(devices.size());
  for (const auto& operation : schedule) {
    const bool travels = is_exchange(operation.part);
    out.clear();
    back.clear();
    for (auto* device : devices) {
      if (operation.part == LayerPart::dispatch) {
        out.push_back(device->dispatch(operation, layer));
      } else if (operation.part == LayerPart::combine) {
        back.push_back(device->combine(operation));
      } else {
        device->compute(operation, layer);
      }
    }
    if (operation.part == LayerPart::dispatch) {
      exchanges[operation.batch]->dispatch(out);
    } else if (operation.part == LayerPart::combine) {
      exchanges[operation.batch]->combine(back);
    }
    for (auto* device : travels ? devices : std::span<CudaLayer* const>{}) {
      device->exchanged(operation);
    }
  }
}

}  // namespace moevar::run
