#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/identity.hpp"
#include "base/random.hpp"
#include "base/units.hpp"
#include "exchange/cost_model.hpp"
#include "fleet/gpu_family.hpp"
#include "fleet/gpu_physics.hpp"
#include "fleet/model_fleet.hpp"
#include "placement/placement.hpp"
#include "placement/speed_model.hpp"
#include "run/backend.hpp"
#include "run/expert_cost.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"
#include "timeline/timeline.hpp"

namespace moevar::run {

/// A family's links as the exchange's cost model takes them.
exchange::Links links_of(const fleet::GpuFamily& family);

/// Modelled GPUs in virtual time. Every value depends on the seed, the fleet and the phase alone:
/// timelines and totals are the same, bit for bit, at any number of ranks.
///
/// A layer: every device dispatches (all-to-all cost of its own tokens' copies or of what its
/// experts receive, whichever is more; gating is not modelled), works (ExpertCost at the clock at
/// which the condition lets it run a dense GEMM, times run noise), waits for the last one, and all
/// combine together at the slowest device's cost. Warm-up steps change nothing, for the devices are
/// in steady state from the start, and are not simulated.
class ModelBackend final : public Backend {
 public:
  /// Collective. The ranks of `comm`, which must outlive this object, share `devices` >= 1 GPUs in
  /// contiguous blocks. Throws InputError for an unknown preset, a spread below 0, or no devices or
  /// tokens.
  ModelBackend(const mpi::Communicator& comm, const study::Fleet& fleet,
               const study::ModelShape& model, std::uint64_t seed, int devices,
               int tokens_per_device);

  [[nodiscard]] const std::vector<DeviceIdentity>& fleet() const override { return identities_; }
  [[nodiscard]] DeviceRange mine() const override { return mine_; }
  [[nodiscard]] std::string timer() const override { return "virtual"; }
  [[nodiscard]] std::string sync() const override { return "virtual"; }

  /// Powers and clocks are those under a dense GEMM. `steady` is false where heat is not "soaked".
  /// Throws InputError where the cap is outside what the family accepts.
  std::vector<timeline::DeviceState> enter(const study::Condition& condition) override;
  /// Exact: the model's own time without run noise. Needs a condition to have been entered.
  placement::SpeedModels profile(int slots, double max_tokens,
                                 std::span<const DeviceId> devices) override;
  /// Bytes over bandwidth: a device sends and receives at once, over the node's links or, where
  /// experts cross nodes, the network.
  Migration move_to(const placement::Placement& placement) override;
  /// Needs a condition to have been entered. Throws InputError where loads, placement and fleet
  /// don't fit each other.
  PhaseResult run(const PhaseSteps& steps) override;

 private:
  /// One of this rank's devices, ready for the steps.
  struct Worker {
    ExpertCost cost;
    RandomKey noise{0};
    double noise_sd = 0.0;
  };
  /// Per layer call, [steps × layers] each, over all devices.
  struct Peaks {
    std::span<Nanoseconds> arrival_ns;  ///< since the layer's start
    std::span<std::int64_t> tokens;
  };

  [[nodiscard]] std::vector<Worker> workers() const;
  [[nodiscard]] const std::vector<timeline::DeviceState>& states() const;
  void check_shapes(const PhaseSteps& steps) const;
  void check_shape(const placement::Placement& placement, const workload::Loads& loads) const;
  void simulate_experts(const PhaseSteps& steps, timeline::Timeline& timeline, Peaks peaks) const;
  void fill_waits(timeline::Timeline& timeline, Peaks peaks) const;

  const mpi::Communicator& comm_;
  const fleet::GpuFamily& family_;
  study::ModelShape model_;
  std::uint64_t seed_;
  int devices_;
  int tokens_per_device_;
  DeviceRange mine_;
  exchange::Links links_;
  exchange::AllToAllCost dispatch_;
  exchange::AllToAllCost combine_;
  std::vector<DeviceIdentity> identities_;
  std::vector<fleet::GpuTraits> gpus_;         ///< of the whole fleet
  std::vector<timeline::DeviceState> states_;  ///< of the whole fleet; empty before enter()
  std::optional<placement::Placement> placed_;
};

}  // namespace moevar::run
