#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>

#include "base/random.hpp"
#include "run/model_backend.hpp"

namespace moevar::run {

inline constexpr int kLayers = 3;
inline constexpr int kSteps = 4;
inline constexpr int kTopK = 2;
inline constexpr int kTokensPerDevice = 3000;

/// The model back end asks a phase for loads, never for routing.
class NoRouting final : public workload::Routing {
 public:
  workload::RoutingShape shape() const override { return {}; }
  void sample(std::int64_t, std::int64_t, std::span<std::uint32_t>) const override {}
  Matrix<std::int32_t> token_experts(std::int64_t, int, std::int64_t) const override { return {}; }
};

inline study::ModelShape shape(int experts) { return {"", 4096, 1536, experts, kTopK, kLayers}; }

inline placement::Placement contiguous(int devices, int experts) {
  placement::Placement placement;
  placement.devices = devices;
  placement.slots_per_device = experts / devices;
  const Matrix<double>::Shape slots{kLayers, static_cast<std::size_t>(experts)};
  placement.expert_of_slot = Matrix<std::int32_t>(slots);
  placement.share_of_slot = Matrix<double>(slots, 1.0);
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    const auto row = placement.expert_of_slot.row(layer);
    std::iota(row.begin(), row.end(), 0);
  }
  return placement;
}

/// Every expert's tokens drawn between 0 and twice the mean.
inline workload::Loads uneven_loads(int devices, int experts, std::size_t steps = kSteps) {
  workload::Loads loads({steps, kLayers, static_cast<std::size_t>(experts)});
  const auto mean = static_cast<std::uint64_t>(devices) * kTokensPerDevice * kTopK /
                    static_cast<std::uint64_t>(experts);
  std::uint64_t i = 0;
  for (auto& count : loads.flat()) {
    count = static_cast<std::uint32_t>(RandomKey(3)[i++].below(2 * mean));
  }
  return loads;
}

/// A fleet, its placement and loads: all that a phase needs.
struct Case {
  /// In the steady state of every condition at once.
  Case(const mpi::Communicator& comm, int devices, int experts, const study::Fleet& fleet = {},
       std::uint64_t seed = 1)
      : Case(comm, devices, experts, at_once(fleet), seed, {}) {}

  /// In time, unless `fleet` says otherwise.
  Case(const mpi::Communicator& comm, int devices, int experts, const study::Fleet& fleet,
       std::uint64_t seed, const conditions::HeatOptions& heat, double telemetry_hz = 0.0,
       std::size_t steps = kSteps)
      : backend(comm, fleet, shape(experts), seed, devices, kTokensPerDevice,
                {.heat = heat, .telemetry_hz = telemetry_hz}),
        placement(contiguous(devices, experts)),
        loads(uneven_loads(devices, experts, steps)) {}

  static study::Fleet at_once(study::Fleet fleet) {
    fleet.transient = false;
    return fleet;
  }

  PhaseResult run(int phase = 0) {
    return backend.run({phase, 0, 2, std::int64_t{kTokensPerDevice} * placement.devices, routing,
                        loads, std::span(&placement, 1)});
  }

  ModelBackend backend;
  placement::Placement placement;
  workload::Loads loads;
  NoRouting routing;
};

}  // namespace moevar::run
