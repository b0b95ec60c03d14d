#include "fleet/cuda_device.hpp"

#include <algorithm>
#include <utility>

#include "checksum/checksum_cuda.hpp"
#include "fleet/device_weights.hpp"

namespace moevar::fleet {

CudaDevice::CudaDevice(const expert_ffn::Shape& shape, const CudaDeviceOptions& options,
                       const cuda::Stream& stream)
    : shape_(shape),
      options_(options),
      stream_(stream),
      slots_(options.layers, options.slots),
      plain_(3 * shape.hidden * shape.intermediate),
      sum_(1),
      engine_(shape, options.precision,
              {.most_groups = static_cast<std::size_t>(options.slots),
               .most_rows = options.most_rows,
               .sm_limit = options.sm_limit}),
      groups_(static_cast<std::size_t>(options.slots)) {}

std::shared_ptr<CudaDevice::Weights> CudaDevice::take_spare() {
  auto spare = slots_.take_spare();
  return spare ? spare : std::make_shared<Weights>(expert_bytes());
}

void CudaDevice::make(int layer, std::int32_t expert, Weights& weights) {
  fill_expert_cuda(shape_, options_.seed, layer, expert, plain_.data(), stream_);
  expert_ffn::to_slot(shape_, options_.precision, plain_.data(), weights.data(), stream_);
}

std::uint64_t CudaDevice::checksum_of(const Weights& weights) {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): any bytes are summed by twos
  const auto* values = reinterpret_cast<const BFloat16*>(weights.data());
  checksum::sum_cuda(values, weights.size() / sizeof(BFloat16), sum_.data(), stream_);
  std::uint64_t sum = 0;
  cuda::to_host(sum_.data(), std::span(&sum, 1), stream_);
  stream_.synchronise();
  return sum;
}

std::uint64_t CudaDevice::expected_checksum(int layer, std::int32_t expert) {
  auto scratch = take_spare();
  make(layer, expert, *scratch);
  const auto sum = checksum_of(*scratch);
  slots_.give_spare(std::move(scratch));
  return sum;
}

void CudaDevice::load(int layer, std::span<const std::int32_t> experts) {
  std::vector<Slots::Slot> loaded;
  loaded.reserve(experts.size());
  for (const auto expert : experts) {
    const auto twin = std::ranges::find(loaded, expert, &Slots::Slot::expert);
    if (twin != loaded.end()) {
      const auto shared = *twin;  // what it points into may move
      loaded.push_back(shared);
      continue;
    }
    loaded.push_back({expert, take_spare()});
    make(layer, expert, *loaded.back().weights);
  }
  slots_.place(layer, std::move(loaded));
}

void CudaDevice::tune(std::size_t rows_per_slot) {
  tuned_for_ = rows_per_slot;
  std::vector<const void*> weights;
  weights.reserve(groups_.size());
  for (int slot = 0; slot < slots_.slots(); ++slot) {
    weights.push_back(slots_.at(0, slot).weights->data());
  }
  std::vector<std::size_t> rows;
  for (std::size_t n = 16; n < rows_per_slot; n *= 4) {
    rows.push_back(n);
  }
  rows.push_back(std::max<std::size_t>(rows_per_slot, 1));
  engine_.tune(weights, rows, stream_);
}

void CudaDevice::reserve(std::size_t rows) {
  if (rows <= options_.most_rows) {
    return;
  }
  options_.most_rows = rows + rows / 4;
  stream_.synchronise();
  engine_ = expert_ffn::DeviceExperts(shape_, options_.precision,
                                      {.most_groups = groups_.size(),
                                       .most_rows = options_.most_rows,
                                       .sm_limit = options_.sm_limit});
  if (tuned_for_ > 0) {
    tune(tuned_for_);
  }
}

void CudaDevice::run_experts(int layer, std::span<const std::int64_t> rows_per_slot,
                             const BFloat16* x, BFloat16* y) {
  for (std::size_t s = 0; s < groups_.size(); ++s) {
    groups_[s] = {slots_.at(layer, static_cast<int>(s)).weights->data(),
                  static_cast<std::size_t>(rows_per_slot[s])};
  }
  engine_.run(groups_, x, y, stream_);
}

}  // namespace moevar::fleet
