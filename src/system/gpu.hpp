#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "system/pci.hpp"

namespace moevar::gpu {

/// A CUDA GPU that this process can see.
struct VisibleGpu {
  int ordinal = 0;   ///< CUDA's, after CUDA_VISIBLE_DEVICES
  std::string name;  ///< product name
  std::string uuid;  ///< "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
  pci::Address pci;
  int sms = 0;         ///< streaming multiprocessors
  int capability = 0;  ///< compute capability × 10: 90
  std::size_t memory_bytes = 0;
};

/// The visible GPUs; empty without CUDA, without a driver, or without a GPU. Never throws for
/// those.
std::vector<VisibleGpu> visible();

/// Why visible() is empty; empty where it is not. "no CUDA-capable device is detected", "CUDA
/// driver version is insufficient for CUDA runtime version", ...
std::string why_none_visible();

/// Whether this program was built with CUDA.
bool built_with_cuda() noexcept;

/// CUDA's versions as CUDA numbers them, major × 1000 + minor × 10: the runtime that this program
/// was built with, and the newest one that the driver supports. 0: none.
int runtime_version() noexcept;
int driver_supports() noexcept;

}  // namespace moevar::gpu
