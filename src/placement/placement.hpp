#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.hpp"
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
  std::vector<double> predicted_us;  ///< [layers]: slowest device's expert time by the speed models
  std::vector<double> lower_bound_us;  ///< [layers]: no placement with these slots is faster
  double solve_ms = 0.0;

  [[nodiscard]] int layers() const noexcept { return static_cast<int>(expert_of_slot.extent(0)); }
  [[nodiscard]] int slots() const noexcept { return devices * slots_per_device; }
};

/// What a policy plans with. References outlive the call.
struct Problem {
  const Matrix<double>& mean_loads;  ///< [layers][experts], tokens per layer call
  const SpeedModels& speeds;         ///< one curve per device
  int devices = 0;
  int slots_per_device = 0;
  std::uint64_t seed = 0;  ///< for policies that draw

  [[nodiscard]] int layers() const noexcept { return static_cast<int>(mean_loads.extent(0)); }
  [[nodiscard]] int experts() const noexcept { return static_cast<int>(mean_loads.extent(1)); }
};

/// One policy: fills expert_of_slot, [layers][slots]. Pure and deterministic; ties go to the lower
/// expert, then to the lower device.
struct Policy {
  std::string_view name;
  std::string_view help;
  Matrix<std::int32_t> (*assign)(const Problem& problem);
};

/// Every policy, in the order of the list in policies.cpp.
std::span<const Policy> policies();

/// Throws InputError that names the nearest policy when there is none of that name.
const Policy& find_policy(std::string_view name);

/// Solves with a policy: checks the problem, assigns, predicts, bounds, and takes the time.
/// Throws InputError where experts and slots don't fit, or loads and speeds don't.
Placement solve(const Policy& policy, const Problem& problem);

/// Tokens of every device for a layer's loads, [devices]; `loads` is [experts].
std::vector<double> device_tokens(const Placement& placement, int layer,
                                  std::span<const double> loads);

/// Throws CheckError unless every expert is placed, slots are in range and shares sum to 1.
void check_placement(const Placement& placement, int experts);

/// Per layer: max(t*, max_e min_d f_d(w_e)) with Σ_d f_d^-1(t*) = Σ_e w_e. Valid where no expert is
/// replicated. Source: papers' makespan bound for unrelated machines, fractional relaxation.
double lower_bound_us(std::span<const double> loads, const SpeedModels& speeds);

/// Experts that lie on a device in `to` but not in `from`, over all layers.
struct Move {
  int layer = 0;
  std::int32_t expert = 0;
  int from_device = 0;
  int to_device = 0;
  int to_slot = 0;
};
/// The moves that turn `from` into `to`, by layer, then by slot. Both have the same shape.
std::vector<Move> moves_between(const Placement& from, const Placement& to);

}  // namespace moevar::placement
