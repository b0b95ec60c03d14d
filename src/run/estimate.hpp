#pragma once

#include <span>

#include "study/plan.hpp"
#include "study/study.hpp"

namespace moevar::run {

/// Roughly how long a plan takes on `ranks` ranks, each with a core of its own, in seconds: the
/// work's counts times rates that were measured on one core of a 2-core AMD EPYC machine. Good to a
/// factor of two.
double estimate_seconds(const study::Study& study, study::DeviceKind kind,
                        std::span<const study::PhaseSpec> plan, int ranks);

}  // namespace moevar::run
