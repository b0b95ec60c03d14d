#include "system/green_context.hpp"

#include <cuda.h>
#include <string>
#include <type_traits>

#include <fmt/format.h>

#include "system/sm_groups.hpp"

namespace moevar::cuda {

namespace {

[[maybe_unused]] constexpr unsigned kSince = 12040;  // CUDA's version that brought green contexts

/// The driver's functions, without a link to its library, which a build machine may lack.
struct Driver {
  decltype(&cuGetErrorName) error_name = nullptr;
  decltype(&cuDeviceGet) device = nullptr;
  decltype(&cuDeviceGetDevResource) resource = nullptr;
  decltype(&cuDevSmResourceSplitByCount) split = nullptr;
  decltype(&cuDevResourceGenerateDesc) describe = nullptr;
  decltype(&cuGreenCtxCreate) create = nullptr;
  decltype(&cuGreenCtxDestroy) destroy = nullptr;
  decltype(&cuGreenCtxGetDevResource) resource_of = nullptr;
  decltype(&cuGreenCtxStreamCreate) make_stream = nullptr;

  Driver() {
    take(error_name, "cuGetErrorName");
    take(device, "cuDeviceGet");
    take(resource, "cuDeviceGetDevResource");
    take(split, "cuDevSmResourceSplitByCount");
    take(describe, "cuDevResourceGenerateDesc");
    take(create, "cuGreenCtxCreate");
    take(destroy, "cuGreenCtxDestroy");
    take(resource_of, "cuGreenCtxGetDevResource");
    take(make_stream, "cuGreenCtxStreamCreate");
  }

 private:
  template <class F>
  static void take(F& function, const char* name) {
    void* found = nullptr;
    auto status = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    MOEVAR_CUDA(cudaGetDriverEntryPointByVersion(name, &found, kSince, cudaEnableDefault, &status));
#else
    MOEVAR_CUDA(cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &status));
#endif
    if (status != cudaDriverEntryPointSuccess || found == nullptr) {
      throw EnvironmentError(fmt::format(
          "the driver has no {}: parts of a GPU need a driver of CUDA 12.4 (550) or later; "
          "moevar doctor shows this one",
          name));
    }
    function = reinterpret_cast<F>(found);
  }
};

const Driver& driver() {
  static const Driver only;
  return only;
}

void check_driver(CUresult code, const char* call) {
  if (code != CUDA_SUCCESS) {
    const char* name = nullptr;
    driver().error_name(code, &name);
    throw LibraryError(call, name == nullptr ? fmt::format("error {}", static_cast<int>(code))
                                             : std::string(name));
  }
}

int sms_of(const CUdevResource& resource) {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-union-access): SMs were asked for
  return static_cast<int>(resource.sm.smCount);
}

/// The SMs of the current GPU in the smallest groups that it gives; none has what another has.
std::vector<CUdevResource> groups_of(CUdevice device) {
  const Driver& call = driver();
  CUdevResource all{};
  check_driver(call.resource(device, &all, CU_DEV_RESOURCE_TYPE_SM), "cuDeviceGetDevResource");
  unsigned count = 0;
  check_driver(call.split(nullptr, &count, &all, nullptr, 0, 1), "cuDevSmResourceSplitByCount");
  std::vector<CUdevResource> groups(count);
  CUdevResource rest{};
  check_driver(call.split(groups.data(), &count, &all, &rest, 0, 1), "cuDevSmResourceSplitByCount");
  groups.resize(count);
  if (groups.empty()) {
    throw EnvironmentError(fmt::format("this GPU's {} SMs cannot be split", sms_of(all)));
  }
  return groups;
}

Partition make_partition(CUdevice device, std::span<CUdevResource> groups) {
  const Driver& call = driver();
  CUdevResourceDesc description = nullptr;
  check_driver(call.describe(&description, groups.data(), static_cast<unsigned>(groups.size())),
               "cuDevResourceGenerateDesc");
  CUgreenCtx raw = nullptr;
  check_driver(call.create(&raw, description, device, CU_GREEN_CTX_DEFAULT_STREAM),
               "cuGreenCtxCreate");
  GreenContext context(raw);
  CUdevResource given{};
  check_driver(call.resource_of(raw, &given, CU_DEV_RESOURCE_TYPE_SM), "cuGreenCtxGetDevResource");
  CUstream stream = nullptr;
  check_driver(call.make_stream(&stream, raw, CU_STREAM_NON_BLOCKING, 0), "cuGreenCtxStreamCreate");
  return {sms_of(given), std::move(context), Stream(stream)};
}

}  // namespace

GreenContext::~GreenContext() {
  if (context_ != nullptr) {
    (void)driver().destroy(context_);
  }
}

std::vector<Partition> split(std::span<const int> sms) {
  MOEVAR_CUDA(cudaFree(nullptr));  // the GPU's own context first, as green contexts want it
  int ordinal = 0;
  MOEVAR_CUDA(cudaGetDevice(&ordinal));
  CUdevice device = 0;
  check_driver(driver().device(&device, ordinal), "cuDeviceGet");
  auto groups = groups_of(device);
  const auto counts = sm_groups(sms, static_cast<int>(groups.size()), sms_of(groups.front()));
  std::vector<Partition> parts;
  parts.reserve(counts.size());
  auto rest = std::span(groups);
  for (const int count : counts) {
    const auto size = static_cast<std::size_t>(count);
    parts.push_back(make_partition(device, rest.first(size)));
    rest = rest.subspan(size);
  }
  return parts;
}

Stream urgent_stream(const Partition& part) {
  CUstream stream = nullptr;
  check_driver(
      driver().make_stream(&stream, part.context.raw(), CU_STREAM_NON_BLOCKING, most_urgent()),
      "cuGreenCtxStreamCreate");
  return Stream(stream);
}

}  // namespace moevar::cuda
