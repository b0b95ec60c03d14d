#pragma once

#include <string>
#include <vector>

namespace moevar::gpu {

/// A CUDA GPU that this process can see.
struct VisibleGpu {
  int ordinal = 0;   ///< CUDA's, after CUDA_VISIBLE_DEVICES
  std::string name;  ///< product name
  std::string uuid;  ///< "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
};

/// The visible GPUs; empty without CUDA, without a driver, or without a GPU. Never throws for
/// those.
std::vector<VisibleGpu> visible();

/// Whether this program was built with CUDA.
bool built_with_cuda() noexcept;

}  // namespace moevar::gpu
