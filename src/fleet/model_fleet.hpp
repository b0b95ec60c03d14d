#pragma once

#include <cstdint>

#include "base/identity.hpp"
#include "base/random.hpp"
#include "base/units.hpp"
#include "fleet/gpu_family.hpp"
#include "fleet/gpu_physics.hpp"

/// Fleets of modelled GPUs. GPU g is a function of the seed and g alone: it is the same device in a
/// fleet of 8 and of 4096, and any rank may draw it.
namespace moevar::fleet {

inline constexpr int kGpusPerNode = 8;

struct FleetOptions {
  double spread = 1.0;       ///< multiplies the spread of chips, sensors and cooling; 1: Longhorn's
  bool homogeneous = false;  ///< every GPU the nominal one, without run noise
  bool equal = false;        ///< every GPU the nominal one but for its own run noise
  bool fail_slow = false;    ///< one GPU in 1000 is slow for no visible reason
};

/// GPU g's traits. Draws are keyed by `RandomKey(seed)[g][parameter]`, parameters numbered as in
/// model_fleet.cpp.
GpuTraits draw_gpu(const GpuFamily& family, const FleetOptions& options, std::uint64_t seed,
                   DeviceId g);

/// Key of GPU g's run noise: `[repetition].normal()` is a kernel call's z.
RandomKey run_noise_key(std::uint64_t seed, DeviceId g) noexcept;

/// GPU g's identity; its `rank` is left 0.
DeviceIdentity model_identity(const GpuFamily& family, std::uint64_t seed, DeviceId g);

}  // namespace moevar::fleet
