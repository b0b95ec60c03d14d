#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fleet/node_places.hpp"
#include "system/affinity.hpp"
#include "system/gpu.hpp"

/// Which rank drives which GPU, from which cores. Pure: every rank computes it for all of them from
/// what each of them sees.
namespace moevar::fleet {

struct GpuOptions {
  /// The GPUs to use, CUDA ordinals or UUIDs, in the order in which a node's ranks take them;
  /// empty: all that a rank sees.
  std::vector<std::string> gpus;
  bool share_gpu = false;  ///< whether ranks may have the same GPU
};

/// A GPU as a rank sees it.
struct SeenGpu {
  gpu::VisibleGpu gpu;
  std::optional<affinity::Locality> near;  ///< nullopt: the machine does not tell
};

/// What a rank sees of its node.
struct RankView {
  NodePlace place;
  std::string host;
  std::vector<SeenGpu> gpus;
  std::vector<int> cores;  ///< those that the launcher left it, ascending
};

/// A rank's GPU: its place in RankView::gpus, and who it is.
struct AssignedGpu {
  std::size_t seen = 0;
  int ordinal = 0;  ///< CUDA's, for that rank
  std::string uuid;
  bool operator==(const AssignedGpu&) const = default;
};

/// Every rank's GPU. Ranks of a node that see the same GPUs take them in turn, each by its number
/// among them: where all see all, by local rank; where each sees one, that one. Of `options.gpus`
/// a node's ranks take in turn those that they see.
/// Throws EnvironmentError that names ranks, host and UUIDs where a rank finds no GPU, an entry of
/// `options.gpus` is no rank's, or, without `share_gpu`, there are fewer GPUs than ranks, a GPU is
/// listed twice, or two ranks have the same one, whatever its ordinals.
std::vector<AssignedGpu> assign_gpus(std::span<const RankView> ranks, const GpuOptions& options);

/// The cores for a rank to run on.
struct CoreShare {
  std::vector<int> cores;  ///< ascending, one at least
  std::string note;        ///< why these are not known to be near its GPU; empty: they are
  bool operator==(const CoreShare&) const = default;
};

/// The cores that the launcher left to a node's ranks together, dealt to them anew: each gets some
/// near its GPU, up to eight (its own thread, NCCL's and the driver's; what stays free serves
/// telemetry), its own where there are enough. Ranks whose GPUs have no known place share the rest.
/// What is dealt once is dealt the same way again.
std::vector<CoreShare> deal_cores(std::span<const RankView> ranks,
                                  std::span<const AssignedGpu> assigned);

}  // namespace moevar::fleet
