#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "study/study.hpp"

namespace moevar::study {

/// One phase of the plan, which is one cell of the study: every factor has one value.
struct PhaseSpec {
  int index = 0;  ///< position in the plan, names /phases/NNNN
  int repeat = 0;
  int devices = 0;
  Condition condition;
  std::string policy;
  /// First of those that share all factors but the policy, one after the other.
  bool new_condition = true;
  Scaling scaling = Scaling::strong;
  int experts = 0;           ///< routed experts of a layer
  int slots_per_device = 0;  ///< expert slots of a layer on each device
  bool even_load = false;    ///< all experts equally popular
  bool equal_fleet = false;  ///< all modelled GPUs nominal but for their run noise
  /// Requests per second and device; none: not given, or no requests at all.
  std::optional<double> rate = {};
};

/// The study's phases in the order in which they run.
///
/// A repeat is a block that holds every cell once. With `order = "randomised"` the conditions are
/// shuffled within their block and the policies within their condition, keyed by the study's seed,
/// so that caps and heat change as seldom as the design allows; with "listed" they come as written.
///
/// Where repeats draw from a pool, a fleet size drops out after pool ÷ (4 × size) of them, for more
/// would take the same GPUs again; one there is always.
std::vector<PhaseSpec> make_plan(const Study& study);

/// How many phases that are, without making them; at most kManyPhases, however many more.
std::int64_t phases_of(const Study& study);
constexpr std::int64_t kManyPhases = std::int64_t{1} << 40;

/// Routed experts of a layer in a fleet of that size.
int experts_of(const Study& study, Scaling scaling, int devices);

/// Expert slots of a layer on each device; 0 where the slots don't divide over the devices.
int slots_per_device(const Study& study, Scaling scaling, int devices);

}  // namespace moevar::study
