#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.hpp"
#include "conditions/keeper.hpp"
#include "fleet/cpu_device.hpp"
#include "run/backend.hpp"
#include "run/cpu_layer.hpp"
#include "run/observed.hpp"
#include "run/profiling.hpp"
#include "run/sensors.hpp"
#include "run/step_excess.hpp"
#include "system/mpi.hpp"
#include "timeline/stamps.hpp"

namespace moevar::run {

/// CPU cores as devices: the layer for real, one rank a core, timed on CLOCK_MONOTONIC_RAW. The
/// first `devices` ranks work; the others take part in every member, and own no device.
class CpuBackend final : public Backend {
 public:
  /// Binds every rank to a core. `comm` outlives the object. Throws InputError for sizes that make
  /// no layer; EnvironmentError where there are fewer ranks than devices, or where weights would
  /// not fit in memory (then an error of status `environment`, alike on every rank).
  /// `redundant_experts`: slots beyond one per expert, over all devices. `sensors`: what cap, heat
  /// and telemetry come from; without one there are none. `profiled_devices`: whether profile()
  /// times them together.
  CpuBackend(const mpi::Communicator& comm, const study::ModelShape& model, std::uint64_t seed,
             int devices, int tokens_per_device, int redundant_experts = 0, Sensors sensors = {},
             study::ProfiledDevices profiled_devices = study::ProfiledDevices::together);

  [[nodiscard]] const std::vector<DeviceIdentity>& fleet() const override { return fleet_; }
  [[nodiscard]] DeviceRange mine() const override;
  [[nodiscard]] std::string timer() const override { return "clock_monotonic_raw"; }
  [[nodiscard]] std::string sync() const override;

  /// Throws InputError for a power cap and for any heat but the default where there is no plant.
  void enter(const study::Condition& condition) override;
  timeline::FleetState settle() override;
  /// As profiling.hpp has it. Together, all devices are timed also where few are asked for, for
  /// alone a device has more of the node's memory bandwidth than in a step. Before move_to() it
  /// makes weights of its own for that.
  placement::SpeedModels profile(int slots, double max_tokens,
                                 std::span<const DeviceId> devices) override;
  Migration move_to(const placement::Placement& placement) override;
  PhaseResult run(const PhaseSteps& steps) override;

  [[nodiscard]] bool real_time() const override { return true; }
  /// Draws the routes of some steps of the largest size, of which every step takes its part,
  /// whatever kind its requests are of; sets the clocks once, before the first step; checks outputs
  /// against the dense reference; times layers of several sizes for exchange_us(). Every device
  /// takes as many tokens of a step, the first of its own: a step's tokens are rounded up. Throws
  /// CheckError as run() does, EnvironmentError where routes do not fit in memory.
  void start_serving(const ServingSetup& setup) override;
  PhaseResult serve(const PhaseSteps& step) override;
  [[nodiscard]] double exchange_us(std::int64_t tokens) const override;
  /// Up to 32 rounds or two seconds, at least three rounds.
  void calibrate(const placement::SpeedModels& speeds) override;
  [[nodiscard]] std::optional<double> foresee_us(
      const PhaseSteps& step, const placement::SpeedModels& speeds) const override;

  /// All outputs of this rank's tokens in one step, [layers][tokens][hidden]; empty on ranks
  /// without a device. Collective; times nothing.
  Tensor<float, 3> outputs(const PhaseSteps& steps, std::int64_t step);
  /// Wall-clock of the latest run()'s steps on this rank, by MPI_Wtime: independent of the
  /// timeline.
  [[nodiscard]] const std::vector<double>& step_seconds() const noexcept { return step_seconds_; }
  /// This rank's device once experts are loaded; nullptr without.
  [[nodiscard]] fleet::CpuDevice* device() noexcept { return device_.get(); }

 private:
  /// Where this rank's tokens go in one step: [layers][tokens × top_k] each.
  struct StepRoute {
    Matrix<std::int32_t> experts;
    Matrix<std::int32_t> slots;
  };

  [[nodiscard]] bool active() const noexcept { return devices_.size() > 0; }
  [[nodiscard]] expert_ffn::Shape expert_shape() const noexcept;
  void check_memory(int layers, int slots_per_device) const;
  void load(const placement::Placement& placement);
  void check_steps(const PhaseSteps& steps) const;
  void route(const PhaseSteps& steps, std::int64_t step);
  void run_step(const PhaseSteps& steps, std::int64_t step, timeline::Stamps* stamps,
                std::size_t row);
  double verify(const PhaseSteps& steps);
  PhaseClock measure(const PhaseSteps& steps, PhaseResult& result);
  ProfileTimes time_experts(fleet::CpuDevice& device, const ProfilePlan& plan);
  /// Tokens that each device takes of a step.
  [[nodiscard]] std::size_t tokens_each(std::int64_t tokens) const;
  void draw_routes(const ServingSetup& setup);
  void run_routed(std::size_t route, std::size_t tokens, timeline::Stamps& stamps);
  void check_reference(double& error, int phase) const;
  void check_routes_fit(std::size_t bytes) const;
  void time_exchange();
  /// Expert time of a served step's layers, as speed models have it.
  [[nodiscard]] double experts_us(const PhaseSteps& step,
                                  const placement::SpeedModels& speeds) const;

  const mpi::Communicator& comm_;
  study::ModelShape model_;
  std::uint64_t seed_;
  int tokens_per_device_;
  std::vector<DeviceIdentity> fleet_;
  mpi::Communicator devices_;             ///< the ranks that work; empty on the others
  timeline::ClockReading clock_reading_;  ///< the worst of the fleet
  Sensors sensors_;
  study::ProfiledDevices profiled_devices_;
  std::optional<conditions::Keeper> keeper_;

  std::optional<placement::Placement> placement_;  ///< where the experts are
  std::unique_ptr<fleet::CpuDevice> device_;
  std::unique_ptr<CpuLayer> layer_;
  StepRoute route_;
  std::vector<double> step_seconds_;

  /// What serving draws from: [step][layer], tokens of all devices in order × top_k each.
  struct Route {
    Matrix<std::int32_t> experts;
    Matrix<std::int32_t> slots;
  };
  std::vector<Route> routes_;
  const workload::Routing* serving_routing_ = nullptr;
  timeline::ClockFit serving_clock_;
  Nanoseconds serving_residual_ns_ = 0;
  double serving_error_ = 0.0;          ///< against the dense reference
  std::vector<double> exchange_grid_;   ///< tokens of a step ...
  std::vector<double> exchange_times_;  ///< ... and µs of a layer without its experts
  StepExcess excess_;
  std::int64_t calibrated_ = 0;  ///< steps taken for it
};

}  // namespace moevar::run
