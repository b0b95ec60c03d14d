#pragma once

#include <string>
#include <vector>

#include "base/identity.hpp"
#include "fleet/gpu_assignment.hpp"
#include "system/mpi.hpp"

namespace moevar::fleet {

/// The GPU that a rank drives, and where the rank runs.
struct BoundGpu {
  gpu::VisibleGpu gpu;  ///< its ordinal is CUDA's for that rank
  CoreShare share;
  std::vector<int> memory_nodes;  ///< near the GPU; empty: not known
  bool memory_bound = false;      ///< whether new memory comes from there while it has room
  int sharers = 1;                ///< ranks that drive this GPU
};

/// A fleet of GPUs, one a rank.
struct GpuFleet {
  std::vector<DeviceIdentity> devices;  ///< the fleet's; a GPU that several of its ranks share is
                                        ///< "GPU-…" for the first, then "GPU-….1", "GPU-….2", …
  std::vector<BoundGpu> ranks;  ///< every rank's, those beyond the fleet included
};

/// Every rank's view of its node, on every rank. Asks CUDA for GPUs, and makes no context on any.
/// Collective.
std::vector<RankView> gather_views(const mpi::Communicator& comm);

/// Gives every rank its GPU (assign_gpus), binds the caller to cores near it (deal_cores) with its
/// memory, and says who the fleet is: the first `devices` ranks, one GPU each. CUDA's current
/// device is not set. Collective; the same on every rank. Throws SharedError with exit status 3
/// where GPUs cannot be given as asked, or there are fewer ranks than `devices`.
GpuFleet bind_gpu_fleet(const mpi::Communicator& comm, int devices, const GpuOptions& options);
/// The same where the ranks' views are known already.
GpuFleet bind_gpu_fleet(const mpi::Communicator& comm, const std::vector<RankView>& views,
                        int devices, const GpuOptions& options);

}  // namespace moevar::fleet
