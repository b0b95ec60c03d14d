/// CUDA's run-time functions as moevar uses them, on the host's memory: a stream does what it is
/// given at once. MOEVAR_FAKE_CUDA says what GPUs there are, words apart by blanks:
///
///     gpus=4 memory_mib=4096 no_driver old_driver lost_after=1000
///
/// lost_after: so many copies of this process later every call fails, as on a GPU that fell off
/// its bus. Without MOEVAR_FAKE_CUDA there is one GPU.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <utility>

namespace {

struct Settings {
  int gpus = 1;
  std::size_t memory_bytes = std::size_t{2} << 30U;
  cudaError_t driver = cudaSuccess;
  long lost_after = -1;
};

const Settings& settings() {
  static const Settings read = [] {
    Settings all;
    const char* text = std::getenv("MOEVAR_FAKE_CUDA");
    std::istringstream words(text == nullptr ? "" : text);
    for (std::string word; words >> word;) {
      const auto value = word.substr(word.find('=') + 1);
      if (word.starts_with("gpus=")) {
        all.gpus = std::stoi(value);
      } else if (word.starts_with("memory_mib=")) {
        all.memory_bytes = std::stoul(value) << 20U;
      } else if (word.starts_with("lost_after=")) {
        all.lost_after = std::stol(value);
      } else if (word == "no_driver") {
        all.driver = cudaErrorInsufficientDriver;
      } else if (word == "old_driver") {
        all.driver = cudaErrorInsufficientDriver;
      } else {
        std::abort();
      }
    }
    if (all.gpus == 0 && all.driver == cudaSuccess) {
      all.driver = cudaErrorNoDevice;
    }
    return all;
  }();
  return read;
}

thread_local int current = 0;
thread_local cudaError_t last = cudaSuccess;
std::atomic<long> copies{0};
std::mutex mutex;
std::map<void*, std::size_t> allocated;
std::size_t in_use = 0;

bool is_lost() { return settings().lost_after >= 0 && copies >= settings().lost_after; }

cudaError_t answer(cudaError_t code) {
  if (code == cudaSuccess && is_lost()) {
    code = cudaErrorLaunchFailure;
  }
  if (code != cudaSuccess) {
    last = code;
  }
  return code;
}

cudaError_t driver() { return answer(settings().driver); }

struct HostEvent {
  std::chrono::steady_clock::time_point at;
};
HostEvent* of(cudaEvent_t event) { return reinterpret_cast<HostEvent*>(event); }

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().driver == cudaSuccess ? settings().gpus : 0;
  return driver();
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = settings().driver == cudaSuccess ? CUDART_VERSION : 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal) {
  *properties = {};
  std::strcpy(properties->name, "Stand-in GPU");
  properties->uuid.bytes[15] = static_cast<char>(ordinal);
  properties->uuid.bytes[0] = static_cast<char>(0xFA);
  properties->pciBusID = ordinal + 1;
  properties->totalGlobalMem = settings().memory_bytes;
  properties->multiProcessorCount = 132;
  properties->major = 9;
  return driver();
}
cudaError_t cudaSetDevice(int ordinal) {
  if (ordinal >= settings().gpus) {
    return answer(cudaErrorInvalidDevice);
  }
  current = ordinal;
  return driver();
}
cudaError_t cudaGetDevice(int* ordinal) {
  *ordinal = current;
  return driver();
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int /*ordinal*/) {
  switch (which) {
    case cudaDevAttrMultiProcessorCount:
      *value = 132;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 1 << 20;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
    default:
      return answer(cudaErrorInvalidValue);
  }
  return driver();
}
cudaError_t cudaDeviceSynchronize() { return driver(); }
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const std::lock_guard lock(mutex);
  *total = settings().memory_bytes;
  *free = *total - std::min(in_use, *total);
  return driver();
}
cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  if (settings().driver != cudaSuccess) {
    return driver();
  }
  if (in_use + bytes > settings().memory_bytes) {
    return answer(cudaErrorMemoryAllocation);
  }
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, 0xFF, bytes);  // NaN, as float and as bfloat16: nobody may read it
  allocated[*memory] = bytes;
  in_use += bytes;
  return answer(cudaSuccess);
}
cudaError_t cudaFree(void* memory) {
  const std::lock_guard lock(mutex);
  if (const auto found = allocated.find(memory); found != allocated.end()) {
    in_use -= found->second;
    allocated.erase(found);
    std::free(memory);
  }
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return driver();
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  ++copies;
  if (is_lost()) {
    return answer(cudaSuccess);
  }
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return answer(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new int(0));
  return driver();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<int*>(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return driver(); }
cudaError_t cudaStreamQuery(cudaStream_t) { return driver(); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return driver(); }
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return answer(cudaErrorNotSupported);
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) {
  return answer(cudaErrorNotSupported);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return answer(cudaErrorNotSupported);
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return answer(cudaErrorNotSupported); }
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = reinterpret_cast<cudaEvent_t>(new HostEvent);
  return driver();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaEventCreate(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  of(event)->at = std::chrono::steady_clock::now();
  return driver();
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return driver(); }
cudaError_t cudaEventQuery(cudaEvent_t) { return driver(); }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  *ms = std::chrono::duration<float, std::milli>(of(end)->at - of(start)->at).count();
  return driver();
}
cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
const char* cudaGetErrorName(cudaError_t code) {
  return code == cudaErrorMemoryAllocation     ? "cudaErrorMemoryAllocation"
         : code == cudaErrorLaunchFailure      ? "cudaErrorLaunchFailure"
         : code == cudaErrorInsufficientDriver ? "cudaErrorInsufficientDriver"
         : code == cudaErrorNoDevice           ? "cudaErrorNoDevice"
                                               : "cudaErrorOther";
}
const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaErrorMemoryAllocation ? "out of memory"
         : code == cudaErrorLaunchFailure  ? "unspecified launch failure"
         : code == cudaErrorInsufficientDriver
             ? "CUDA driver version is insufficient for CUDA runtime version"
         : code == cudaErrorNoDevice ? "no CUDA-capable device is detected"
                                     : "another error";
}

}  // extern "C"
