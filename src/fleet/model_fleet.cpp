#include "fleet/model_fleet.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace moevar::fleet {

namespace {

/// What a number of GPU g is drawn for; the second level of its key. Fixed for good: a number that
/// changes its meaning changes every fleet.
enum Parameter : std::uint64_t {
  sensor_gain = 1,
  voltage_shift = 2,
  leakage = 3,
  dynamic = 4,
  base_power = 5,
  resistance = 6,
  inlet = 7,
  is_badly_cooled = 8,
  bad_cooling = 9,
  is_slow = 10,
  slowness = 11,
  noise_sd = 12,
  run_noise = 200,
};

}  // namespace

// Spreads: the sum of those of 1 ... 6 is fitted to 392 V100 (Longhorn, SC22) and carried over to
// the other families; the single ones are not separately identifiable. The rate of bad cooling is
// measured there (4 of 392), its range fitted to the same fleet's slowest GPUs.
GpuTraits draw_gpu(const GpuFamily& family, const FleetOptions& options, std::uint64_t seed,
                   DeviceId g) {
  GpuTraits gpu;
  gpu.t_in_c = family.t_in_c;
  if (options.homogeneous) {
    return gpu;
  }
  const auto key = [seed, g](Parameter parameter) {
    return RandomKey(seed)[static_cast<std::uint64_t>(g)][parameter];
  };
  gpu.noise_sd = 0.0012 * std::exp(0.65 * key(noise_sd).normal());
  if (options.equal) {
    return gpu;
  }
  const auto normal = [&](Parameter parameter, double sd) {
    return options.spread * sd * key(parameter).normal();
  };
  gpu.sensor_gain = std::clamp(1.0 + normal(sensor_gain, 0.015), 0.95, 1.05);
  gpu.voltage_shift = normal(voltage_shift, 0.005);
  gpu.leakage = std::exp(normal(leakage, 0.10));
  gpu.dynamic = 1.0 + normal(dynamic, 0.004);
  gpu.base = 1.0 + normal(base_power, 0.05);
  gpu.resistance = std::exp(normal(resistance, 0.05));
  gpu.t_in_c += family.t_in_sd_c * key(inlet).normal();
  gpu.slot_sign = g % 2 == 1 ? 1 : -1;
  if (key(is_badly_cooled).uniform() < 0.010) {
    gpu.resistance *= 1.2 + 0.55 * key(bad_cooling).uniform();
  }
  if (options.fail_slow && key(is_slow).uniform() < 1e-3) {
    gpu.slow_factor = 1.1 + 0.9 * key(slowness).uniform();
  }
  return gpu;
}

RandomKey run_noise_key(std::uint64_t seed, DeviceId g) noexcept {
  return RandomKey(seed)[static_cast<std::uint64_t>(g)][run_noise];
}

DeviceIdentity model_identity(const GpuFamily& family, std::uint64_t seed, DeviceId g) {
  DeviceIdentity identity;
  identity.device = g;
  identity.kind = "model";
  identity.uuid = fmt::format("model-{}-{}-{}", family.name, seed, g);
  identity.name = fmt::format("{} (modelled)", family.name);
  identity.node = g / kGpusPerNode;
  identity.slot = g % kGpusPerNode;
  identity.host = fmt::format("model-node-{}", identity.node);
  return identity;
}

}  // namespace moevar::fleet
