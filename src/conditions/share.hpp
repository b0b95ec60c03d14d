#pragma once

#include <cstddef>
#include <vector>

#include "system/mpi.hpp"
#include "timeline/telemetry.hpp"

namespace moevar::conditions {

/// What every rank read of its own devices, as one list of the whole fleet on every rank.
/// `devices`: of the fleet. Collective.
std::vector<timeline::Reading> share(const mpi::Communicator& comm,
                                     const std::vector<timeline::Reading>& mine,
                                     std::size_t devices);
std::vector<timeline::Counters> share(const mpi::Communicator& comm,
                                      const std::vector<timeline::Counters>& mine,
                                      std::size_t devices);
std::vector<timeline::CapState> share(const mpi::Communicator& comm,
                                      const std::vector<timeline::CapState>& mine,
                                      std::size_t devices);

}  // namespace moevar::conditions
