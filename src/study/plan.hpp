#pragma once

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
  bool new_condition = true;  ///< devices or condition differ from the phase before
};

/// The study's phases in the order in which they run.
///
/// A repeat is a block that holds every cell once. With `order = "randomised"` the conditions are
/// shuffled within their block and the policies within their condition, keyed by the study's seed,
/// so that caps and heat change as seldom as the design allows; with "listed" they come as written.
std::vector<PhaseSpec> make_plan(const Study& study);

}  // namespace moevar::study
