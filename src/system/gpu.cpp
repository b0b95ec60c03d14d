#include "system/gpu.hpp"

#ifdef MOEVAR_HAVE_CUDA
#include <cuda_runtime_api.h>

#include <fmt/format.h>
#endif

namespace moevar::gpu {

#ifdef MOEVAR_HAVE_CUDA

bool built_with_cuda() noexcept { return true; }

std::vector<VisibleGpu> visible() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // clears the error: no driver and no GPU are no errors here
    return {};
  }
  std::vector<VisibleGpu> gpus;
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, ordinal) != cudaSuccess) {
      cudaGetLastError();
      continue;
    }
    std::string uuid = "GPU-";
    for (int i = 0; i < 16; ++i) {
      const bool dash = i == 4 || i == 6 || i == 8 || i == 10;
      uuid += fmt::format("{}{:02x}", dash ? "-" : "",
                          static_cast<unsigned char>(properties.uuid.bytes[i]));
    }
    gpus.push_back({ordinal, static_cast<const char*>(properties.name), uuid});
  }
  return gpus;
}

#else

bool built_with_cuda() noexcept { return false; }

std::vector<VisibleGpu> visible() { return {}; }

#endif

}  // namespace moevar::gpu
