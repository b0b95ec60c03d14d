#pragma once

#include <vector>

#include "system/mpi.hpp"

namespace moevar::fleet {

/// Where a rank runs.
struct NodePlace {
  int node = 0;        ///< nodes are numbered in the order of their first ranks
  int local_rank = 0;  ///< among the ranks of its node
};

/// Every rank's. `node` holds the ranks of the caller's node (split_by_node). Collective.
std::vector<NodePlace> gather_places(const mpi::Communicator& comm, const mpi::Communicator& node);

}  // namespace moevar::fleet
