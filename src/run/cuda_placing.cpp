#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "exchange/cuda_copy_engine.hpp"
#include "exchange/nccl_exchange.hpp"
#include "exchange/nccl_migration.hpp"
#include "exchange/staged_exchange.hpp"
#include "placement/migration.hpp"
#include "run/cuda_backend_impl.hpp"

/// What CudaBackend does when experts come to their places.
namespace moevar::run {

namespace {

constexpr std::chrono::duration<double> kPatience{60.0};
constexpr double kRoomAboveEven =
    1.5;  // rows on a device, as a part of even loads, before it grows

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }

}  // namespace

std::size_t CudaBackend::rows_per_slot(int slots) const noexcept {
  return (batches_.front().count * size_of(model_.top_k) + size_of(slots) - 1) / size_of(slots);
}

std::unique_ptr<fleet::CudaDevice> CudaBackend::make_device(std::size_t lane, int layers, int slots,
                                                            std::size_t rows) const {
  return std::make_unique<fleet::CudaDevice>(
      expert_shape(),
      fleet::CudaDeviceOptions{.precision = study_.fleet.precision == study::Precision::fp8
                                                ? expert_ffn::Precision::fp8
                                                : expert_ffn::Precision::bf16,
                               .seed = study_.seed,
                               .layers = layers,
                               .slots = slots,
                               .most_rows = rows,
                               .sm_limit = sm_limit_of(lane)},
      stream_of(lane));
}

void CudaBackend::make_exchange(int slots) {
  const auto& mine = gpus_.ranks[size_of(comm_.rank())];
  const bool shared =
      std::ranges::any_of(gpus_.ranks, [](const auto& rank) { return rank.sharers > 1; });
  const auto wanted = study_.fleet.exchange;
  const bool possible = lanes_per_rank_ == 1 && devices_.size() > 1 &&
                        nccl::why_unavailable().empty() && (!shared || nccl::shares_gpus());
  const Patience patience{describe_process(comm_.rank(), mine.gpu.uuid), kPatience};
  const exchange::ExchangeShape shape{
      .lanes = lanes_per_rank_,
      .slots = slots,
      .row_bytes = sizeof(BFloat16) * size_of(model_.hidden),
      .counts = study_.fleet.counts == study::ExchangeCounts::exchanged
                    ? exchange::Counts::exchanged
                    : exchange::Counts::known};
  const std::size_t bytes = lanes_.front().device->expert_bytes();
  const auto engine = [] { return std::make_unique<exchange::CudaCopyEngine>(); };
  std::int64_t without = wanted == study::ExchangePath::nccl || possible ? 0 : 1;
  devices_.all_reduce_max(std::span(&without, 1));
  if (wanted != study::ExchangePath::staged && without == 0) {
    nccl_.emplace(devices_, mine.gpu.uuid, kPatience, batches_.size() > 1 ? kExchangeSms : 0);
    migration_ =
        std::make_unique<exchange::NcclMigration>(devices_, *nccl_, bytes, engine(), patience);
  } else {
    migration_ = std::make_unique<exchange::StagedMigration>(devices_, lanes_per_rank_, bytes,
                                                             engine(), patience);
  }
  for (std::size_t batch = 0; batch < batches_.size(); ++batch) {
    if (nccl_) {
      exchanges_.push_back(
          std::make_unique<exchange::NcclExchange>(devices_, *nccl_, shape, engine()));
    } else {
      exchanges_.push_back(
          std::make_unique<exchange::StagedExchange>(devices_, shape, engine(), patience));
    }
  }
}

cuda::Stream CudaBackend::make_exchange_stream(std::size_t lane) const {
  return parts_.empty() ? cuda::Stream::urgent() : cuda::urgent_stream(parts_[lane]);
}

void CudaBackend::load(const placement::Placement& placement) {
  const int slots = placement.slots_per_device;
  on_gpus([&] {
    if (!active()) {
      return;
    }
    check_memory(placement.layers(), slots);
    const auto rows = static_cast<std::size_t>(
        kRoomAboveEven * static_cast<double>(rows_per_slot(slots) * size_of(slots)));
    for (std::size_t lane = 0; lane < lanes(); ++lane) {
      auto& here = lanes_.emplace_back();
      here.device = make_device(lane, placement.layers(), slots, rows);
      for (int layer = 0; layer < placement.layers(); ++layer) {
        here.device->load(layer, placement.expert_of_slot.row(layer).subspan(
                                     size_of(device_of(lane)) * size_of(slots), size_of(slots)));
      }
      here.device->tune(rows_per_slot(slots));
      if (batches_.size() > 1) {
        here.exchange_stream = std::make_unique<cuda::Stream>(make_exchange_stream(lane));
      }
      here.layer = std::make_unique<CudaLayer>(
          model_,
          CudaLayerOptions{.seed = study_.seed,
                           .device = device_of(lane),
                           .devices = static_cast<int>(fleet_.size()),
                           .layers = placement.layers(),
                           .tokens = tokens_per_device_,
                           .slots = slots,
                           .sm_limit = sm_limit_of(lane),
                           .batches = batches_.size(),
                           .exchange_stream = here.exchange_stream.get()},
          *here.device);
      stream_of(lane).synchronise();
    }
  });
  if (active()) {
    naming_gpu([&] { make_exchange(slots); });
  }
}

void CudaBackend::check_arrived(int layer, std::size_t lane,
                                const fleet::CudaDevice::Slots::Slot& arrived,
                                std::string& failure) {
  auto& device = *lanes_[lane].device;
  const auto is = device.checksum_of(*arrived.weights);
  const auto expected = device.expected_checksum(layer, arrived.expert);
  if (is != expected && failure.empty()) {
    failure = fmt::format(
        "migration: layer {}, expert {} came to device {} with checksum {:016x}; the seed gives "
        "{:016x}",
        layer, arrived.expert, device_of(lane), is, expected);
  }
}

void CudaBackend::move_layer(int layer, std::span<const placement::Move> moves,
                             const placement::Placement& to, std::string& failure) {
  using Slots = fleet::CudaDevice::Slots;
  std::vector<exchange::WeightMove> travels;
  std::vector<std::vector<Slots::Slot>> incoming(lanes());
  for (const auto& move : moves) {
    exchange::WeightMove travel{.from_device = move.from_device, .to_device = move.to_device};
    for (std::size_t lane = 0; lane < lanes(); ++lane) {
      auto& device = *lanes_[lane].device;
      if (move.from_device == device_of(lane)) {
        travel.source = device.slots().find(layer, move.expert)->weights->data();
      }
      if (move.to_device == device_of(lane)) {
        incoming[lane].push_back({move.expert, device.take_spare()});
        travel.target = incoming[lane].back().weights->data();
      }
    }
    travels.push_back(travel);
  }
  std::vector<const cuda::Stream*> streams;
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    streams.push_back(&stream_of(lane));
  }
  for (const auto* stream : streams) {
    stream->synchronise();
  }
  devices_.barrier();
  const Nanoseconds start = timeline::monotonic_raw_ns();
  migration_->move(travels, streams);
  for (const auto* stream : streams) {
    exchanges_.front()->wait(*stream);
  }
  transfer_ns_ += timeline::monotonic_raw_ns() - start;
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    for (const auto& arrived : incoming[lane]) {
      check_arrived(layer, lane, arrived, failure);
    }
    if (failure.empty()) {
      put_in_place(layer, lane, std::move(incoming[lane]), to);
    }
  }
}

void CudaBackend::put_in_place(int layer, std::size_t lane,
                               std::vector<fleet::CudaDevice::Slots::Slot> incoming,
                               const placement::Placement& to) {
  using Slot = fleet::CudaDevice::Slots::Slot;
  auto& table = lanes_[lane].device->slots();
  std::vector<Slot> slots;
  slots.reserve(size_of(table.slots()));
  for (int slot = 0; slot < table.slots(); ++slot) {
    const auto expert = to.expert_of_slot(layer, device_of(lane) * table.slots() + slot);
    // an expert comes once, for all of the device's slots that have it
    const auto arrived = std::ranges::find(incoming, expert, &Slot::expert);
    const Slot* here =
        arrived != incoming.end() ? std::to_address(arrived) : table.find(layer, expert);
    if (here == nullptr) {
      throw CheckError(fmt::format("layer {}: expert {} has not come to device {}", layer, expert,
                                   device_of(lane)));
    }
    slots.push_back(*here);
  }
  incoming.clear();  // the slots alone hold the weights now
  table.place(layer, std::move(slots));
}

Migration CudaBackend::move_to(const placement::Placement& placement) {
  if (size_of(placement.devices) != fleet_.size() ||
      (placement_ && placement_->expert_of_slot.shape() != placement.expert_of_slot.shape())) {
    throw InputError(fmt::format(
        "placement of {} layers on {} devices × {} slots; this fleet has {} devices, and layers "
        "and slots stay as they were first",
        placement.layers(), placement.devices, placement.slots_per_device, fleet_.size()));
  }
  Migration migration;
  if (!placement_) {
    load(placement);
    placement_ = placement;
    return migration;
  }
  const auto moves = placement::moves_between(*placement_, placement);
  std::string failure;
  if (active()) {
    naming_gpu([&] {
      transfer_ns_ = 0;
      for (int layer = 0; layer < placement.layers(); ++layer) {
        std::vector<placement::Move> here;
        std::ranges::copy_if(moves, std::back_inserter(here),
                             [&](const auto& move) { return move.layer == layer; });
        move_layer(layer, here, placement, failure);
      }
      migration.time_ms = 1e-6 * static_cast<double>(transfer_ns_);
      migration.bytes =
          static_cast<std::int64_t>(moves.size() * lanes_.front().device->expert_bytes());
    });
  }
  mpi::on_all(comm_, [&] {
    if (!failure.empty()) {
      throw CheckError(failure);
    }
  });
  migration.moved_experts = static_cast<std::int64_t>(moves.size());
  comm_.all_reduce_max(std::span(&migration.time_ms, 1));
  comm_.all_reduce_max(std::span(&migration.bytes, 1));
  placement_ = placement;
  return migration;
}

}  // namespace moevar::run
