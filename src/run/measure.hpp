#pragma once

#include <string>

#include "run/backend.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// What a phase did, and why it ended: "fixed" (as many steps as the study says), "precision",
/// "max_n", "time_limit" or "no_further_gain".
struct Measured {
  PhaseResult result;
  std::string stop_reason = "fixed";
};

/// Runs the steps of a phase. Collective; every rank gets the same reason.
///
/// With `rule.precision` > 0 steps come in blocks of `rule.steps`, and between blocks all ranks
/// agree whether to go on. Each looks at the step times of its own devices' experts, rank 0 also at
/// those of the whole layer. A series is precise where the 95 % rank interval of its median, with
/// ranks for its effective sample size, reaches no further than `precision` of the median on
/// average of both sides; from kFewestSteps on. It stops gaining where the interval is hardly
/// narrower than at a quarter of the steps. `all`: the phase's steps up to `rule.max_steps`; its
/// loads (and placements, where every step has one) are as long as that.
///
/// Repeated looks lower the coverage of the interval that ended the phase: headlines want a fixed
/// number of steps.
Measured measure(const mpi::Communicator& comm, const study::Phases& rule, Backend& backend,
                 const PhaseSteps& all);

inline constexpr std::size_t kFewestSteps = 30;

}  // namespace moevar::run
