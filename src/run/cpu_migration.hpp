#pragma once

#include "fleet/cpu_device.hpp"
#include "placement/placement.hpp"
#include "run/backend.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// Sends expert weights between CPU devices until every device holds what `to` says, layer by
/// layer: weights arrive in spare storage, and take their places together once their checksums are
/// right, so that a layer never lacks an expert. `time_ms` is this device's time in the transfers
/// alone. Collective over `devices`, rank d being device d. Throws CheckError, after all transfers
/// are over, where weights that left or arrived are not what the seed says; such a layer stays as
/// it was.
Migration move_experts(const mpi::Communicator& devices, fleet::CpuDevice& device,
                       const placement::Placement& from, const placement::Placement& to);

}  // namespace moevar::run
