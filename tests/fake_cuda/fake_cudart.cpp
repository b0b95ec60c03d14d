/// CUDA's run-time functions as moevar uses them, on the host's memory: a stream does what it is
/// given at once. MOEVAR_FAKE_CUDA says what GPUs there are, words apart by blanks:
///
///     gpus=4 memory_mib=4096 no_driver old_driver lost_after=1000 trace=FOLDER deaf_to=3
///
/// lost_after: so many copies of this process later every call fails, as on a GPU that fell off
/// its bus. trace: all that is queued, a line each, goes to FOLDER/PID: the stream's number and
/// what. deaf_to: the wait for an event with that number, from 0, orders nothing. Without
/// MOEVAR_FAKE_CUDA there is one GPU.
///
/// Though everything is done at once, who may use which memory beside whom is checked as if it were
/// not (stream_order.hpp): what no stream, event or wait of the host puts in order ends the
/// program.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <fstream>
#include <map>
#include <mutex>
#include <numeric>
#include <sstream>
#include <string>
#include <unistd.h>
#include <utility>

#include <mpi.h>

#include "fake_cuda.hpp"

namespace {

using moevar::fake::Bytes;

struct Settings {
  int gpus = 1;
  std::size_t memory_bytes = std::size_t{2} << 30U;
  cudaError_t driver = cudaSuccess;
  long lost_after = -1;
  long deaf_to = -1;
  std::string trace;
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
      } else if (word.starts_with("deaf_to=")) {
        all.deaf_to = std::stol(value);
      } else if (word.starts_with("trace=")) {
        all.trace = value;
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
struct Allocation {
  std::size_t bytes = 0;
  bool device = true;
};
std::map<void*, Allocation> allocated;
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
  int number = 0;
  bool timed = true;
};
HostEvent* of(cudaEvent_t event) { return reinterpret_cast<HostEvent*>(event); }

std::atomic<int> next_number{0};  ///< of streams and events
std::atomic<long> waits{0};

moevar::fake::StreamOrder& order() {
  static moevar::fake::StreamOrder all;
  return all;
}

/// 0: the host.
int number_of(const void* stream) {
  return stream == nullptr ? 0 : *static_cast<const int*>(stream);
}

void trace(const void* stream, const std::string& what) {
  if (settings().trace.empty()) {
    return;
  }
  static std::ofstream file(settings().trace + "/" + std::to_string(getpid()));
  const std::lock_guard lock(mutex);
  file << number_of(stream) << ' ' << what << std::endl;
}

/// Memory of the host that is not pinned is the host's alone: a copy waits for it.
std::size_t tracked(const void* memory, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  auto after = allocated.upper_bound(const_cast<void*>(memory));
  if (after == allocated.begin()) {
    return 0;
  }
  const auto& [begin, piece] = *std::prev(after);
  return memory < static_cast<const char*>(begin) + piece.bytes ? bytes : 0;
}

void use(const void* stream, const char* what, std::span<const Bytes> reads,
         std::span<const Bytes> writes) {
  trace(stream, what);
  if (const auto race = order().use(stream, what, reads, writes); !race.empty()) {
    std::fprintf(stderr, "fake CUDA: race: %s\n", race.c_str());
    std::abort();
  }
}

}  // namespace

namespace moevar::fake {

void used(const void* stream, const char* what, std::initializer_list<Bytes> reads,
          std::initializer_list<Bytes> writes) {
  use(stream, what, {reads.begin(), reads.size()}, {writes.begin(), writes.size()});
}

}  // namespace moevar::fake

extern "C" void moevar_fake_cuda_used(const void* stream, const char* what, const void* read,
                                      std::size_t read_bytes, const void* written,
                                      std::size_t written_bytes) {
  moevar::fake::used(stream, what, {{read, read_bytes}}, {{written, written_bytes}});
}

/// The host reads and writes what streams copied from and to.
extern "C" int MPI_Alltoallv(const void* sent, const int* sent_counts, const int* sent_begins,
                             MPI_Datatype sent_type, void* received, const int* received_counts,
                             const int* received_begins, MPI_Datatype received_type,
                             MPI_Comm comm) {
  int ranks = 0;
  int size = 0;
  MPI_Comm_size(comm, &ranks);
  MPI_Type_size(sent_type, &size);
  const auto row = static_cast<std::size_t>(size);
  const auto all = [&](const void* buffer, const int* counts) {
    const auto rows = static_cast<std::size_t>(std::accumulate(counts, counts + ranks, 0));
    return Bytes{buffer, tracked(buffer, rows * row)};
  };
  moevar::fake::used(nullptr, "MPI_Alltoallv", {all(sent, sent_counts)},
                     {all(received, received_counts)});
  return PMPI_Alltoallv(sent, sent_counts, sent_begins, sent_type, received, received_counts,
                        received_begins, received_type, comm);
}

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
cudaError_t cudaDeviceSynchronize() {
  order().synchronise_all();
  return driver();
}
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
  allocated[*memory] = {bytes, true};
  in_use += bytes;
  return answer(cudaSuccess);
}
cudaError_t cudaFree(void* memory) {
  const std::lock_guard lock(mutex);
  if (const auto found = allocated.find(memory); found != allocated.end()) {
    order().forget({memory, found->second.bytes});
    in_use -= found->second.device ? found->second.bytes : 0;
    allocated.erase(found);
    std::free(memory);
  }
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  allocated[*memory] = {bytes, false};
  return driver();
}
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  ++copies;
  if (is_lost()) {
    return answer(cudaSuccess);
  }
  moevar::fake::used(stream, "copy", {{from, tracked(from, bytes)}}, {{to, tracked(to, bytes)}});
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  moevar::fake::used(stream, "fill", {}, {{memory, bytes}});
  std::memset(memory, value, bytes);
  return answer(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new int(++next_number));
  trace(*stream, "created");
  return driver();
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* most) {
  *least = 0;
  *most = -5;
  return driver();
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return priority < -5 || priority > 0 ? answer(cudaErrorInvalidValue)
                                       : cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  order().forget_stream(stream);
  delete reinterpret_cast<int*>(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  order().synchronise_stream(stream);
  return driver();
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  trace(stream, "wait for " + std::to_string(of(event)->number));
  if (waits++ != settings().deaf_to) {
    order().wait(stream, event);
  }
  return driver();
}
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
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = reinterpret_cast<cudaEvent_t>(
      new HostEvent{{}, ++next_number, (flags & cudaEventDisableTiming) == 0});
  return driver();
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  order().forget_event(event);
  delete of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  trace(stream, (of(event)->timed ? "time " : "record ") + std::to_string(of(event)->number));
  of(event)->at = std::chrono::steady_clock::now();
  order().record(event, stream);
  return driver();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  order().synchronise_event(event);
  return driver();
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  if (!of(start)->timed || !of(end)->timed) {
    return answer(cudaErrorInvalidResourceHandle);
  }
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
