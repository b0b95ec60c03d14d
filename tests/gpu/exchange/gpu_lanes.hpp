#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gpu_test.hpp"
#include "system/green_context.hpp"
#include "system/mpi.hpp"
#include "system/nccl.hpp"

namespace moevar::exchange {

/// The GPU of this rank: ranks of a node take turns over those they see.
struct RankGpu {
  int ordinal = 0;
  std::string uuid;
};

inline RankGpu gpu_of(const mpi::Communicator& world) {
  const auto visible = gpu::visible();
  const auto mine = static_cast<std::size_t>(world.split_by_node().rank()) % visible.size();
  return {visible[mine].ordinal, visible[mine].uuid};
}

/// Why NCCL cannot connect these ranks; nullopt: it can.
inline std::optional<std::string> why_no_nccl(const mpi::Communicator& world, const RankGpu& gpu) {
  if (const auto why = nccl::why_unavailable(); !why.empty()) {
    return why;
  }
  return nccl::sharing_problem(world.all_gather(gpu.uuid), nccl::version(), nccl::shares_gpus());
}

/// A stream per lane: of the whole GPU, or of a part of 8 SMs each.
class LaneStreams {
 public:
  LaneStreams(std::size_t lanes, bool parts) {
    if (parts) {
      parts_ = cuda::split(std::vector<int>(lanes, 8));
    } else {
      whole_ = std::vector<cuda::Stream>(lanes);
    }
    all_.reserve(lanes);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      all_.push_back(parts ? &parts_[lane].stream : &whole_[lane]);
    }
  }
  [[nodiscard]] const cuda::Stream& operator[](std::size_t lane) const { return *all_[lane]; }
  [[nodiscard]] const std::vector<const cuda::Stream*>& all() const noexcept { return all_; }

 private:
  std::vector<cuda::Partition> parts_;
  std::vector<cuda::Stream> whole_;
  std::vector<const cuda::Stream*> all_;
};

}  // namespace moevar::exchange
