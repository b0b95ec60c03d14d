#include "system/gpu.hpp"

#ifdef MOEVAR_HAVE_CUDA
#include <cuda_runtime_api.h>

#include <fmt/format.h>
#endif

namespace moevar::gpu {

#ifdef MOEVAR_HAVE_CUDA

bool built_with_cuda() noexcept { return true; }

int runtime_version() noexcept { return CUDART_VERSION; }

int driver_supports() noexcept {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

std::string why_none_visible() {
  int count = 0;
  const auto code = cudaGetDeviceCount(&count);
  cudaGetLastError();  // clears the error
  if (code != cudaSuccess) {
    return cudaGetErrorString(code);
  }
  return count == 0 ? cudaGetErrorString(cudaErrorNoDevice) : "";
}

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
    gpus.push_back({.ordinal = ordinal,
                    .name = static_cast<const char*>(properties.name),
                    .uuid = uuid,
                    .pci = {static_cast<unsigned>(properties.pciDomainID),
                            static_cast<unsigned>(properties.pciBusID),
                            static_cast<unsigned>(properties.pciDeviceID)},
                    .sms = properties.multiProcessorCount,
                    .capability = 10 * properties.major + properties.minor,
                    .memory_bytes = properties.totalGlobalMem});
  }
  return gpus;
}

#else

bool built_with_cuda() noexcept { return false; }

std::vector<VisibleGpu> visible() { return {}; }

std::string why_none_visible() { return "this program was built without CUDA"; }

int runtime_version() noexcept { return 0; }

int driver_supports() noexcept { return 0; }

#endif

}  // namespace moevar::gpu
