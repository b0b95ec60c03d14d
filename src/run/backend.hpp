#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/identity.hpp"
#include "base/units.hpp"
#include "placement/placement.hpp"
#include "placement/speed_model.hpp"
#include "study/study.hpp"
#include "timeline/timeline.hpp"
#include "workload/routing.hpp"

namespace moevar::run {

/// The steps of one phase. What it refers to outlives it.
struct PhaseSteps {
  int phase = 0;                ///< index in the plan; keys run noise
  std::int64_t first_step = 0;  ///< workload step of the first measured one
  int warmup_steps = 0;         ///< run just before it, not recorded
  std::int64_t tokens = 0;      ///< tokens of a step, over all devices
  const workload::Routing& routing;
  const workload::Loads& loads;  ///< of the measured steps, [steps][layers][experts]
  /// One for all steps, or one for each measured step.
  std::span<const placement::Placement> placements;
  std::size_t ran_before = 0;  ///< measured steps of the phase before these, in earlier calls

  [[nodiscard]] const placement::Placement& placement_of(std::size_t step) const {
    return placements.size() == 1 ? placements.front() : placements[step];
  }
};

/// What a backend that really runs steps has to prepare for serving.
struct ServingSetup {
  int phase = 0;
  const workload::Routing& routing;
  const placement::Placement& placement;
  std::int64_t first_step = 0;
};

/// What moving experts to a new placement took.
struct Migration {
  std::int64_t moved_experts = 0;  ///< (layer, device, expert): an expert that came to a device
  std::int64_t bytes = 0;          ///< weights sent between devices
  double time_ms = 0.0;            ///< slowest device
};

/// This rank's part of a phase.
struct PhaseResult {
  timeline::Timeline mine;        ///< this rank's devices
  timeline::LayerTotals totals;   ///< of the whole fleet, the same on every rank
  timeline::Telemetry telemetry;  ///< this rank's devices
  Nanoseconds clock_residual_ns =
      0;  ///< differences over ranks below this mean nothing; 0 in virtual time
  double reference_error =
      0.0;  ///< largest relative error against the dense reference; 0 for model
  Nanoseconds clock_step_ns = 0;  ///< of the devices' clocks, the coarsest; 0 in virtual time
  /// What noting times down took of layer time; 0 in virtual time.
  double stamping_share = 0.0;
};

/// The machines under a phase: modelled GPUs in virtual time, or real ones. A backend is one fleet
/// of a given size. Every member is collective over the backend's ranks.
class Backend {
 public:
  virtual ~Backend() = default;

  /// The whole fleet, the same on every rank.
  [[nodiscard]] virtual const std::vector<DeviceIdentity>& fleet() const = 0;
  /// This rank's devices.
  [[nodiscard]] virtual DeviceRange mine() const = 0;
  /// Clock and synchronisation behind the timelines, for the record: "virtual",
  /// "clock_monotonic_raw" ...
  [[nodiscard]] virtual std::string timer() const = 0;
  [[nodiscard]] virtual std::string sync() const = 0;

  /// Puts the fleet under a condition: its cap, then its heat.
  virtual void enter(const study::Condition& condition) = 0;
  /// Just before the steps of a phase: brings the fleet back to the condition where profiling and
  /// placing have let it slip. How it stands then, the same on every rank.
  virtual timeline::FleetState settle() = 0;
  /// f_d(n) of `devices` (rising; empty: the whole fleet) under the present condition, up to
  /// `max_tokens` a device, split evenly over `slots` experts; in their order, the same on every
  /// rank.
  virtual placement::SpeedModels profile(int slots, double max_tokens,
                                         std::span<const DeviceId> devices) = 0;
  /// Moves expert weights to `placement`. The first call of a backend loads them instead (moved 0).
  /// Throws CheckError where a checksum differs after the move.
  virtual Migration move_to(const placement::Placement& placement) = 0;
  /// Runs warm-up and measured steps. Throws CheckError where it cannot change the placement from
  /// step to step and is asked to.
  virtual PhaseResult run(const PhaseSteps& steps) = 0;

  /// Whether steps take the time that passes meanwhile; else the time that they say.
  [[nodiscard]] virtual bool real_time() const { return false; }
  /// Makes ready to serve requests from the placement of move_to(), in steps of up to as many
  /// tokens as the backend's devices hold.
  virtual void start_serving(const ServingSetup& /*setup*/) {}
  /// One step of any size up to that: `step` has one of them, without warm-up.
  virtual PhaseResult serve(const PhaseSteps& step) { return run(step); }
  /// Time of a layer without its experts, tokens spread evenly. Between start_serving() and the
  /// next placement. Throws CheckError where the backend serves no requests.
  [[nodiscard]] virtual double exchange_us(std::int64_t tokens) const;
  /// Takes steps of many sizes to learn what they take beyond what speed models say; what earlier
  /// calls since start_serving() learnt stays.
  virtual void calibrate(const placement::SpeedModels& /*speeds*/) {}
  /// What speed models say that a step's layers take, plus what one of calibrate()'s steps took
  /// beyond them; nothing where steps are computed from speed models anyway.
  [[nodiscard]] virtual std::optional<double> foresee_us(
      const PhaseSteps& /*step*/, const placement::SpeedModels& /*speeds*/) const {
    return std::nullopt;
  }
  /// Slows a device from now on, at once in its steady state, until calm(). Throws CheckError where
  /// that cannot be done to this kind of device, EnvironmentError where it is not in one.
  virtual void disturb(DeviceId device, study::Disturbance how);
  virtual void calm() {}
};

}  // namespace moevar::run
