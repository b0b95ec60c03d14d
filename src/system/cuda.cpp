#include "system/cuda.hpp"

#include <string>

#include <fmt/format.h>

namespace moevar::cuda {

namespace {

/// What to do about it, where that is known; begins with a blank.
std::string_view advice(cudaError_t code) {
  switch (code) {
    case cudaErrorNoDevice:
      return " (no GPU that this process may see; CUDA_VISIBLE_DEVICES?)";
    case cudaErrorInsufficientDriver:
      return " (no NVIDIA driver, or one older than this CUDA needs: moevar doctor shows both)";
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return " (driver and its libraries are of different versions; reinstall or reboot)";
    case cudaErrorNoKernelImageForDevice:
      return " (moevar was not compiled for this GPU; set CMAKE_CUDA_ARCHITECTURES)";
    case cudaErrorDevicesUnavailable:
      return " (another process has the GPU for itself; moevar doctor shows which)";
    case cudaErrorMemoryAllocation:
      return " (moevar doctor shows who else holds memory there)";
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorNvlinkUncorrectable:
      return " (a fault of the hardware; the driver's log has an Xid)";
    default:
      return "";
  }
}

int attribute(cudaDeviceAttr which) {
  int ordinal = 0;
  int value = 0;
  MOEVAR_CUDA(cudaGetDevice(&ordinal));
  MOEVAR_CUDA(cudaDeviceGetAttribute(&value, which, ordinal));
  return value;
}

}  // namespace

CudaError::CudaError(cudaError_t code, std::string_view call, SourceLocation where)
    : LibraryError(
          call,
          fmt::format("{}: {}{}", cudaGetErrorName(code), cudaGetErrorString(code), advice(code)),
          where),
      code_(code) {}

bool CudaError::lost() const noexcept {
  switch (code_) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

void check(cudaError_t code, std::string_view call, SourceLocation where) {
  if (code != cudaSuccess) {
    (void)cudaGetLastError();  // the next call is not to be blamed for it
    throw CudaError(code, call, where);
  }
}

void use(int ordinal) { MOEVAR_CUDA(cudaSetDevice(ordinal)); }

void synchronise() { MOEVAR_CUDA(cudaDeviceSynchronize()); }

Memory memory() {
  Memory memory;
  MOEVAR_CUDA(cudaMemGetInfo(&memory.free, &memory.total));
  return memory;
}

int sm_count() { return attribute(cudaDevAttrMultiProcessorCount); }
std::size_t l2_bytes() { return static_cast<std::size_t>(attribute(cudaDevAttrL2CacheSize)); }
int compute_capability() {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
         attribute(cudaDevAttrComputeCapabilityMinor);
}

Stream::Stream() { MOEVAR_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
Stream Stream::urgent() {
  cudaStream_t stream = nullptr;
  MOEVAR_CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, most_urgent()));
  return Stream(stream);
}
Stream::~Stream() {
  if (stream_ != nullptr) {
    (void)cudaStreamDestroy(stream_);
  }
}
void Stream::synchronise() const { MOEVAR_CUDA(cudaStreamSynchronize(stream_)); }

int most_urgent() {
  int least = 0;
  int most = 0;
  MOEVAR_CUDA(cudaDeviceGetStreamPriorityRange(&least, &most));
  return most;
}

Event::Event(Wait wait) {
  MOEVAR_CUDA(cudaEventCreateWithFlags(
      &event_, wait == Wait::sleep ? cudaEventBlockingSync : cudaEventDefault));
}
Event Event::without_time() {
  cudaEvent_t event = nullptr;
  MOEVAR_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return Event(event);
}
Event::~Event() {
  if (event_ != nullptr) {
    (void)cudaEventDestroy(event_);
  }
}
void Event::record(const Stream& stream) const {
  MOEVAR_CUDA(cudaEventRecord(event_, stream.raw()));
}
void Event::synchronise() const { MOEVAR_CUDA(cudaEventSynchronize(event_)); }
void Event::hold(const Stream& stream) const {
  MOEVAR_CUDA(cudaStreamWaitEvent(stream.raw(), event_, 0));
}
float Event::us_since(const Event& start) const {
  float ms = 0.0F;
  MOEVAR_CUDA(cudaEventElapsedTime(&ms, start.event_, event_));
  return 1e3F * ms;
}

namespace detail {

void* allocate_device(std::size_t bytes, SourceLocation where) {
  if (bytes == 0) {
    return nullptr;
  }
  void* memory = nullptr;
  const auto code = cudaMalloc(&memory, bytes);
  if (code == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    std::size_t free = 0;
    std::size_t total = 0;
    (void)cudaMemGetInfo(&free, &total);
    throw CudaError(code,
                    fmt::format("cudaMalloc of {} MiB, where {} of {} MiB are free", bytes >> 20U,
                                free >> 20U, total >> 20U),
                    where);
  }
  check(code, "cudaMalloc", where);
  return memory;
}

void* allocate_pinned(std::size_t bytes, SourceLocation where) {
  if (bytes == 0) {
    return nullptr;
  }
  void* memory = nullptr;
  check(cudaMallocHost(&memory, bytes), fmt::format("cudaMallocHost of {} MiB", bytes >> 20U),
        where);
  return memory;
}

// an error here would have been one before
void free_device(void* memory) noexcept { (void)cudaFree(memory); }
void free_pinned(void* memory) noexcept { (void)cudaFreeHost(memory); }

}  // namespace detail

void copy_bytes(void* to, const void* from, std::size_t bytes, const Stream& stream) {
  if (bytes > 0) {
    MOEVAR_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream.raw()));
  }
}

void Graph::begin(const Stream& stream) {
  MOEVAR_CUDA(cudaStreamBeginCapture(stream.raw(), cudaStreamCaptureModeThreadLocal));
}

void Graph::abandon(const Stream& stream) noexcept {
  cudaGraph_t graph = nullptr;
  (void)cudaStreamEndCapture(stream.raw(), &graph);
  if (graph != nullptr) {
    (void)cudaGraphDestroy(graph);
  }
  (void)cudaGetLastError();
}

Graph Graph::end(const Stream& stream) {
  cudaGraph_t recorded = nullptr;
  MOEVAR_CUDA(cudaStreamEndCapture(stream.raw(), &recorded));
  Graph graph;
  const auto code = cudaGraphInstantiate(&graph.graph_, recorded, 0);
  (void)cudaGraphDestroy(recorded);
  check(code, "cudaGraphInstantiate");
  return graph;
}

Graph::~Graph() {
  if (graph_ != nullptr) {
    (void)cudaGraphExecDestroy(graph_);
  }
}

void Graph::launch(const Stream& stream) const {
  MOEVAR_CUDA(cudaGraphLaunch(graph_, stream.raw()));
}

}  // namespace moevar::cuda
