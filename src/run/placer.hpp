#pragma once

#include <array>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "placement/drift.hpp"
#include "placement/placement.hpp"
#include "run/backend.hpp"
#include "study/plan.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"
#include "timeline/timeline.hpp"
#include "workload/loads.hpp"

namespace moevar::run {

/// The steps that a phase plans with and those that it runs, the same on every rank.
struct PhaseLoads {
  const workload::Loads& planned;
  const workload::Loads& measured;
  const Matrix<double>& mean;  ///< of `planned`
};

/// Placing::because where a plan of an earlier phase still serves.
inline constexpr auto kKept = "kept";

/// Where the experts of a phase go.
struct Placing {
  std::span<const placement::Placement> placements;  ///< one, or one per measured step; valid until
                                                     ///< the next phase is placed
  std::string because;  ///< why these; results/README.md says the words
  bool per_step = false;
  Migration migration;
};

/// Plans where the experts of a study's phases go, and notices when a plan no longer fits. One per
/// run, on every rank; every member is collective. Rank 0 decides, from what is the same at any
/// number of ranks.
class Placer {
 public:
  /// Both outlive the object.
  Placer(const mpi::Communicator& comm, const study::Study& study) : comm_(comm), study_(study) {}

  /// How many tokens a device's speed model is to reach: beyond the heaviest load that any
  /// placement can bring it.
  [[nodiscard]] static double range_of_models(const Matrix<double>& mean_loads, int slots);
  /// Measures the speed models of the phase's whole fleet under its present condition.
  void profile(const study::PhaseSpec& phase, Backend& backend, const Matrix<double>& mean_loads);
  /// Takes those of an earlier profile of the phase's fleet.
  void recall(placement::SpeedModels speeds);
  /// Those of the fleet profiled last, [devices].
  [[nodiscard]] const placement::SpeedModels& speeds() const noexcept { return speeds_; }
  /// How often they have changed.
  [[nodiscard]] int profiles() const noexcept { return profiles_; }

  /// Solves where the study wants it or drift has been noticed, and moves experts there. Policies
  /// that go by where experts lie begin from the same policy's last placement on such a fleet, as
  /// if no other policy ran in between. For a policy that plans every step anew nothing is moved:
  /// what moving would take is counted, and takes no time.
  Placing place(const study::PhaseSpec& phase, Backend& backend, const PhaseLoads& loads);

  /// What watch() has seen for the phase's plan; empty where it watches nothing. On rank 0 alone.
  [[nodiscard]] std::string state(const study::PhaseSpec& phase) const;
  /// What an earlier session left of a plan, on every rank: of the last phase that had it, its
  /// placement and state(), and the speed models of the one that solved it. Phases come in the
  /// plan's order. Throws InputError where the state is not one.
  void restore(const study::PhaseSpec& phase, placement::Placement placement,
               const placement::SpeedModels& speeds, DeviceRange mine, const std::string& state);

  /// Which fleet, loads and policy a plan is for.
  using PlanKey = std::tuple<int, study::Scaling, bool, bool, std::string>;
  static PlanKey key_of(const study::PhaseSpec& phase) {
    return {phase.devices, phase.scaling, phase.even_load, phase.equal_fleet, phase.policy};
  }

  /// Placements in memory: what takes most of it, for studies of many steps.
  [[nodiscard]] std::size_t placements_kept() const;

  /// After a phase: holds what it did against what its placement was planned with.
  void watch(const study::PhaseSpec& phase, const workload::Loads& measured,
             const timeline::Timeline& mine);

 private:
  struct Plan {
    std::vector<placement::Placement> placements;
    placement::SpeedModels speeds;              ///< of this rank's devices, as it was solved with
    std::optional<placement::LoadDrift> loads;  ///< rank 0
    std::vector<placement::ResidualDrift> residuals;  ///< of this rank's devices
    std::vector<double> left;  ///< [devices] measured ÷ model, NaN: not left; on every rank
  };

  [[nodiscard]] std::string reason_to_solve(const placement::Policy& policy,
                                            const Plan& plan) const;
  void profile_again(const study::PhaseSpec& phase, Backend& backend, const Plan& plan,
                     const Matrix<double>& mean_loads);
  [[nodiscard]] const std::vector<double>& bounds(const placement::Problem& problem,
                                                  const study::PhaseSpec& phase);
  [[nodiscard]] std::vector<placement::Placement> solve(const placement::Policy& policy,
                                                        const study::PhaseSpec& phase,
                                                        const PhaseLoads& loads,
                                                        const Plan& before);
  void start_watch(Plan& plan, const PhaseLoads& loads, DeviceRange mine) const;
  void release_steps();
  void release_other_draws(const study::PhaseSpec& phase);
  [[nodiscard]] bool watches(const study::PhaseSpec& phase) const;
  [[nodiscard]] Migration moves_of_steps(const placement::Policy& policy,
                                         const study::PhaseSpec& phase, const PhaseLoads& loads,
                                         const Plan& plan) const;

  const mpi::Communicator& comm_;
  const study::Study& study_;
  placement::SpeedModels speeds_;
  int profiles_ = 0;  ///< how often speeds_ has changed
  /// Bounds are the same for all policies of a setting: rank 0 keeps the last, by fleet, loads and
  /// profiles_.
  std::array<int, 5> bounds_of_{};
  std::vector<double> bounds_;
  std::map<PlanKey, Plan> plans_;
  int repeat_ = 0;  ///< of plans_, where every repeat has other devices
};

}  // namespace moevar::run
