#include "run/expert_cost.hpp"

namespace moevar::run {

namespace {

constexpr double kBytesPerValue = 2.0;

}  // namespace

ExpertCost::ExpertCost(const fleet::GpuFamily& family, const fleet::GpuTraits& gpu,
                       const study::ModelShape& model, double clock_mhz) noexcept {
  const double hidden = model.hidden;
  const double intermediate = model.intermediate;
  const auto compute_ns = [&](double flops) {
    return fleet::kernel_time_ns(family, gpu, flops, 0.0, clock_mhz);
  };
  const auto memory_ns = [&](double bytes) {
    return fleet::kernel_time_ns(family, gpu, 0.0, bytes, clock_mhz);
  };
  tile_ns = compute_ns(6.0 * hidden * intermediate * kSmallTileRows);
  weights_ns = memory_ns(static_cast<double>(expert_bytes(model)));
  token_ns = memory_ns((2.0 * hidden + 2.0 * intermediate) * kBytesPerValue);
}

std::int64_t expert_bytes(const study::ModelShape& model) noexcept {
  return std::int64_t{3} * model.hidden * model.intermediate * 2;
}

}  // namespace moevar::run
