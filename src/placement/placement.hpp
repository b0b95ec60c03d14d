#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.hpp"
#include "placement/problem.hpp"
#include "placement/speed_model.hpp"

namespace moevar::placement {

/// Layer → slot → expert. Slot s lies on device s / slots_per_device.
struct Placement {
  std::string policy;
  int devices = 0;
  int slots_per_device = 0;
  Matrix<std::int32_t> expert_of_slot;  ///< [layers][slots], physical_to_logical_map in files
  Matrix<double>
      share_of_slot;  ///< [layers][slots]: part of its expert's tokens; sums to 1 per expert
  std::vector<double> predicted_us;    ///< [layers]: slowest device's expert time by the speed
                                       ///< models, mean over the steps of a trace
  std::vector<double> lower_bound_us;  ///< [layers]: no placement with these slots is faster
  double solve_ms = 0.0;

  [[nodiscard]] int layers() const noexcept { return static_cast<int>(expert_of_slot.extent(0)); }
  [[nodiscard]] int slots() const noexcept { return devices * slots_per_device; }
};

/// One policy. Pure and deterministic; ties go to the lower expert, then to the lower device.
struct Policy {
  std::string_view name;
  std::string_view help;
  /// Fills a layer's slots, and shares where it sets them.
  void (*assign)(const LayerProblem& problem, LayerSlots slots) = nullptr;
  /// Plans a step with the step's own loads, as nothing placed in advance can: for such a policy
  /// every step has a placement of its own, whose slots_per_device it chooses itself.
  Placement (*plan_step)(const Problem& step) = nullptr;
  bool from_home = false;         ///< plan_step moves experts from where contiguous puts them
  bool keeps_budget = false;      ///< honours Problem::receive_budget
  bool keeps_duplicates = false;  ///< as published: two replicas may share a device

  [[nodiscard]] bool per_step() const noexcept { return plan_step != nullptr; }
};

/// Every policy, in the order of the list in policies.cpp.
std::span<const Policy> policies();

/// Throws InputError that names the nearest policy when there is none of that name.
const Policy& find_policy(std::string_view name);

/// Solves with a policy: checks the problem, assigns, predicts, bounds, and takes the time (of the
/// policy alone). Throws InputError where experts and slots don't fit, loads and speeds don't, or a
/// policy that plans every step anew is asked for one placement of many steps.
Placement solve(const Policy& policy, const Problem& problem);

/// One placement for all steps of the problem's trace or, for a policy that plans every step anew,
/// one per step. Throws as solve does.
std::vector<Placement> solve_steps(const Policy& policy, const Problem& problem);

/// Tokens of every device for a layer's loads, [devices]; `loads` is [experts].
std::vector<double> device_tokens(const Placement& placement, int layer,
                                  std::span<const double> loads);

/// The slowest device's time in µs for a layer's loads; `loads` is [experts].
double layer_time_us(const Placement& placement, int layer, std::span<const double> loads,
                     const SpeedModels& speeds);

/// The same for every layer of a problem, the mean over the steps of its trace; [layers].
std::vector<double> layer_times_us(const Placement& placement, const Problem& problem);

/// Throws CheckError unless every expert is placed, slots are in range and shares sum to 1.
void check_placement(const Placement& placement, int experts);

/// A time in µs that no placement of `loads` ([experts]) into devices × slots_per_device slots
/// beats, however replicas share their tokens (lower_bound.cpp says why).
double lower_bound_us(std::span<const double> loads, const SpeedModels& speeds,
                      int slots_per_device);

/// The same for every layer of a problem, the mean over the steps of its trace; [layers].
std::vector<double> lower_bounds(const Problem& problem, int slots_per_device);

/// An expert that a device holds in `to` and does not hold in `from`, once per layer, device and
/// expert however many of the device's slots have it.
struct Move {
  int layer = 0;
  std::int32_t expert = 0;
  int from_device = 0;
  int to_device = 0;
  int to_slot = 0;  ///< the first that has it
};
/// The moves that turn `from` into `to`, by layer, then by slot. Both have as many devices.
std::vector<Move> moves_between(const Placement& from, const Placement& to);

}  // namespace moevar::placement
