#pragma once

#include "system/hdf5.hpp"
#include "system/mpi.hpp"
#include "timeline/timeline.hpp"

/// The part of study.h5 that says how devices stood, phase by phase.
namespace moevar::record {

/// The whole fleet's telemetry on rank 0, from every rank's own; collective. Elsewhere empty. What
/// one rank with devices took, all took.
timeline::Telemetry gather_telemetry(const mpi::Communicator& comm,
                                     const timeline::Telemetry& mine);

/// Writes the group telemetry; `telemetry` is the whole fleet's. One rank calls it.
void write_telemetry(const hdf5::Group& phase, const timeline::FleetState& state,
                     const timeline::Telemetry& telemetry);

}  // namespace moevar::record
