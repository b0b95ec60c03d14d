#pragma once

#include <cstddef>
#include <functional>

#include "run/backend.hpp"
#include "run/sensors.hpp"
#include "system/mpi.hpp"
#include "timeline/clock.hpp"

namespace moevar::run {

/// How this rank's host clock stood to a phase's.
struct PhaseClock {
  timeline::ClockFit fit;
  Nanoseconds zero_ns = 0;  ///< of the phase, on the common clock
};

/// Runs `measure`, which fills `result`'s timeline, on the ranks that have devices (`active`), with
/// what `sensors.plant` shows meanwhile as the result's telemetry: rank d has device d. Collective
/// over `comm`; the plant is there.
void measure_observed(const mpi::Communicator& comm, const Sensors& sensors, bool active,
                      PhaseResult& result, const std::function<PhaseClock()>& measure);

/// How a fleet stands that nothing watches.
timeline::FleetState unobserved(std::size_t devices);

/// The coarsest and the dearest clock of the ranks that have devices (`active`), whose own is
/// `mine`. Collective over `comm`.
timeline::ClockReading worst_of(const mpi::Communicator& comm, bool active,
                                timeline::ClockReading mine);

/// Notes down how finely a clock told the times of `result`, and what its readings took of them.
void note_clock(const timeline::ClockReading& clock, PhaseResult& result);

}  // namespace moevar::run
