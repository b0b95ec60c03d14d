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
#include "conditions/heat.hpp"
#include "conditions/model_plant.hpp"
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

/// What makes a modelled fleet apart from its family and size.
struct ModelOptions {
  conditions::HeatOptions heat;
  double telemetry_hz = 0.0;
  int draw = 0;        ///< number of the draw from `fleet.pool`, where there is one
  bool equal = false;  ///< all GPUs nominal but for their run noise
};

/// The GPUs of the pool from which a study draws its fleets; none where it draws from none.
std::vector<DeviceIdentity> pool_of(const study::Study& study);

/// Modelled GPUs in virtual time. Every value depends on the seed, the fleet and the phase alone:
/// timelines and totals are the same, bit for bit, at any number of ranks.
///
/// A layer: every device dispatches (all-to-all cost of its own tokens' copies or of what its
/// experts receive, whichever is more; gating is not modelled), works (ExpertCost at its clock,
/// times run noise), waits for the last one, and all combine together at the slowest device's cost.
///
/// Clocks: a fleet that has reached thermal steady state under load keeps the clocks of that state,
/// for nothing changes. Any other one is simulated in time: a step runs at the mean clock over its
/// duration, which the power regulator and the warming die decide. For power and heat a device in a
/// step counts as running a dense GEMM throughout, waits included. With `fleet.transient = false`
/// every condition is taken to be in its steady state at once. Every condition begins with idle
/// GPUs at rest, so that nothing depends on the phases before it.
class ModelBackend final : public Backend {
 public:
  /// Collective. The ranks of `comm`, which must outlive this object, share `devices` >= 1 GPUs in
  /// contiguous blocks: the first ones of the family, or of a draw from the pool. Throws InputError
  /// for an unknown preset, a spread below 0, no devices or tokens, or a pool that cannot be drawn
  /// from.
  ModelBackend(const mpi::Communicator& comm, const study::Fleet& fleet,
               const study::ModelShape& model, std::uint64_t seed, int devices,
               int tokens_per_device, const ModelOptions& options = {});

  [[nodiscard]] const std::vector<DeviceIdentity>& fleet() const override { return identities_; }
  [[nodiscard]] DeviceRange mine() const override { return mine_; }
  [[nodiscard]] std::string timer() const override { return "virtual"; }
  [[nodiscard]] std::string sync() const override { return "virtual"; }

  /// Throws InputError where the cap is outside what the family accepts; EnvironmentError where a
  /// GPU shuts down for heat.
  void enter(const study::Condition& condition) override;
  /// As enter() left it: no virtual time passes outside the steps. Powers and clocks are those that
  /// the cap allows under a dense GEMM at the die's temperature.
  timeline::FleetState settle() override;
  /// Exact: the model's own time without run noise, at the clocks of settle(). Needs a condition to
  /// have been entered.
  placement::SpeedModels profile(int slots, double max_tokens,
                                 std::span<const DeviceId> devices) override;
  /// Bytes over bandwidth: a device sends and receives at once, over the node's links or, where
  /// experts cross nodes, the network.
  Migration move_to(const placement::Placement& placement) override;
  /// Needs a condition to have been entered. Throws InputError where loads, placement and fleet
  /// don't fit each other.
  PhaseResult run(const PhaseSteps& steps) override;

  [[nodiscard]] double exchange_us(std::int64_t tokens) const override;
  /// hot_aisle: inlet air 15 °C warmer; capped: the device's limit lowered to 0.7 of it; failing:
  /// kernels take 1.3 times as long.
  void disturb(DeviceId device, study::Disturbance how) override;
  void calm() override;

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

  /// A step of one of this rank's devices.
  struct DeviceStep {
    int phase = 0;
    std::size_t step = 0;
    std::size_t ran_before = 0;  ///< steps of the phase in earlier calls
    std::size_t device = 0;
    std::int64_t sent = 0;  ///< copies of the device's own tokens
  };
  /// Of [first, last).
  struct StepRange {
    std::size_t first = 0;
    std::size_t last = 0;
  };

  /// Tokens of this rank's slots, [steps][layers][slots].
  using SlotCounts = Tensor<std::uint32_t, 3>;

  void solve_states(const study::Condition& condition);
  void bring_to(const study::Condition& condition);
  /// This rank's devices at their clocks, [devices of mine].
  [[nodiscard]] std::vector<Worker> workers(std::span<const double> clocks_mhz) const;
  [[nodiscard]] std::vector<double> settled_clocks() const;
  [[nodiscard]] const std::vector<timeline::DeviceState>& states() const;
  void check_shapes(const PhaseSteps& steps) const;
  void check_shape(const placement::Placement& placement, const workload::Loads& loads) const;
  void simulate_experts(const PhaseSteps& steps, StepRange range,
                        std::span<const double> clocks_mhz, timeline::Timeline& timeline,
                        Peaks peaks) const;
  /// Steps of `range`, whose `counts` begin with the first of them.
  void run_devices(std::span<const Worker> workers, const PhaseSteps& steps, StepRange range,
                   const SlotCounts& counts, timeline::Timeline& timeline, Peaks peaks) const;
  /// A device's step, `works` [layers].
  void run_device(const Worker& worker, std::span<const SlotWork> works, const DeviceStep& at,
                  timeline::Timeline& timeline, Peaks peaks) const;
  /// All steps at the settled clocks; then, where time is simulated, what sensors show meanwhile.
  void run_settled(const PhaseSteps& steps, PhaseResult& result, Peaks peaks);
  /// Step by step, the clocks following power and heat.
  void run_in_time(const PhaseSteps& steps, PhaseResult& result, Peaks peaks);
  void run_step_in_time(const PhaseSteps& steps, std::size_t step, PhaseResult& result,
                        Peaks peaks);
  [[nodiscard]] double step_seconds(std::size_t step, std::size_t layers, Peaks peaks) const;
  void fill_waits(timeline::Timeline& timeline, Peaks peaks) const;

  const mpi::Communicator& comm_;
  const fleet::GpuFamily& family_;
  study::ModelShape model_;
  std::uint64_t seed_;
  int devices_;
  DeviceRange mine_;
  exchange::Links links_;
  exchange::AllToAllCost dispatch_;
  exchange::AllToAllCost combine_;
  std::vector<DeviceIdentity> identities_;
  std::vector<fleet::GpuTraits> gpus_;  ///< of the whole fleet
  timeline::FleetState state_;          ///< without devices before enter()
  ModelOptions options_;
  std::optional<conditions::ModelPlant> plant_;  ///< none: not simulated in time
  std::optional<conditions::ModelPlant::State> at_rest_;
  std::optional<conditions::ModelPlant::State> entered_;
  double ahead_s_ = 0.0;  ///< by which the plant's time is ahead of the steps'
  bool settled_ = true;   ///< in thermal steady state under load
  std::optional<placement::Placement> placed_;

  /// A device that disturb() has slowed, as it was before.
  struct Disturbed {
    std::size_t device = 0;
    fleet::GpuTraits gpu;
    timeline::DeviceState state;
  };
  std::vector<Disturbed> disturbed_;  ///< latest last
  study::Condition condition_;        ///< entered last
};

}  // namespace moevar::run
