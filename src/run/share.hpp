#pragma once

#include "placement/placement.hpp"
#include "placement/speed_model.hpp"
#include "system/mpi.hpp"

/// What rank 0 knows, for every rank. Collective.
namespace moevar::run {

void share(const mpi::Communicator& comm, placement::Placement& placement);
void share(const mpi::Communicator& comm, placement::SpeedModels& speeds);

}  // namespace moevar::run
