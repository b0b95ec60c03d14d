#pragma once

#include <span>

#include "study/plan.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// Throws EnvironmentError where a node does not have the memory for the largest phase of the plan:
/// loads of two windows and the placements on every rank, timelines of the rank's devices, and on
/// the rank that plans and writes a trace and one array of the whole fleet. `study` has the
/// routing's layers. Collective.
void check_memory(const mpi::Communicator& comm, const study::Study& study,
                  std::span<const study::PhaseSpec> plan);

/// The most measured steps that a phase of the study can have.
[[nodiscard]] inline int most_steps(const study::Phases& phases) noexcept {
  return phases.precision > 0.0 ? phases.max_steps : phases.steps;
}

}  // namespace moevar::run
