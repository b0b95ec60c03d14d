#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.hpp"

/// CUDA's run-time library, owned and checked. Everything belongs to the GPU that was current when
/// it was made (use()); plain device memory alone, no managed memory. Part of builds with CUDA.
namespace moevar::cuda {

/// A call failed: which one, CUDA's own text, and what to do where that is known.
class CudaError : public LibraryError {
 public:
  CudaError(cudaError_t code, std::string_view call,
            SourceLocation where = SourceLocation::current());
  [[nodiscard]] cudaError_t code() const noexcept { return code_; }
  /// Whether nothing on this GPU works any more in this process.
  [[nodiscard]] bool lost() const noexcept;

 private:
  cudaError_t code_;
};

/// Throws CudaError unless `code` is success.
void check(cudaError_t code, std::string_view call,
           SourceLocation where = SourceLocation::current());

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): the call is part of the message
#define MOEVAR_CUDA(call) ::moevar::cuda::check((call), #call)

/// Makes a GPU the calling thread's.
void use(int ordinal);

/// Waits until the current GPU has done everything.
void synchronise();

/// Free and all memory of the current GPU, bytes.
struct Memory {
  std::size_t free = 0;
  std::size_t total = 0;
};
Memory memory();

/// Streaming multiprocessors of the current GPU, and its L2 cache in bytes.
int sm_count();
std::size_t l2_bytes();
/// 90 for compute capability 9.0.
int compute_capability();

/// In-order queue of work that waits for no other stream.
class Stream {
 public:
  Stream();
  /// Takes over a stream made elsewhere, such as one of a green context.
  explicit Stream(cudaStream_t stream) noexcept : stream_(stream) {}
  /// One whose kernels get multiprocessors that become free before those of other streams.
  static Stream urgent();
  ~Stream();
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  [[nodiscard]] cudaStream_t raw() const noexcept { return stream_; }
  void synchronise() const;

 private:
  cudaStream_t stream_ = nullptr;
};

/// The priority of what goes first on the current GPU.
int most_urgent();

/// A point in a stream, with its time.
class Event {
 public:
  /// What the host does in synchronise(): look without a pause, or give its core away meanwhile.
  enum class Wait { spin, sleep };
  explicit Event(Wait wait = Wait::spin);
  /// One that orders streams alone, which costs them less: us_since() throws.
  static Event without_time();
  ~Event();
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  [[nodiscard]] cudaEvent_t raw() const noexcept { return event_; }
  void record(const Stream& stream) const;
  void synchronise() const;
  /// Later work of `stream` waits for it.
  void hold(const Stream& stream) const;
  /// From `start` to this one, both over; resolution about half a microsecond.
  [[nodiscard]] float us_since(const Event& start) const;

 private:
  explicit Event(cudaEvent_t event) noexcept : event_(event) {}
  cudaEvent_t event_ = nullptr;
};

namespace detail {
void* allocate_device(std::size_t bytes, SourceLocation where);
void* allocate_pinned(std::size_t bytes, SourceLocation where);
void free_device(void* memory) noexcept;
void free_pinned(void* memory) noexcept;
}  // namespace detail

/// `size` values in the GPU's memory, not initialised. Throws EnvironmentError that names bytes
/// wanted and free where there is not as much.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t size, SourceLocation where = SourceLocation::current())
      : data_(static_cast<T*>(detail::allocate_device(size * sizeof(T), where))), size_(size) {}
  ~DeviceArray() { detail::free_device(data_); }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return size_ * sizeof(T); }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// `size` values in host memory that the GPU reads and writes by itself, not initialised.
template <typename T>
class PinnedArray {
 public:
  PinnedArray() = default;
  explicit PinnedArray(std::size_t size, SourceLocation where = SourceLocation::current())
      : data_(static_cast<T*>(detail::allocate_pinned(size * sizeof(T), where))), size_(size) {}
  ~PinnedArray() { detail::free_pinned(data_); }
  PinnedArray(PinnedArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  PinnedArray& operator=(PinnedArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  PinnedArray(const PinnedArray&) = delete;
  PinnedArray& operator=(const PinnedArray&) = delete;

  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<T> values() const noexcept { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Copies in the order of a stream; host memory is to be pinned, else the copy waits.
void copy_bytes(void* to, const void* from, std::size_t bytes, const Stream& stream);

template <typename T>
void to_device(std::span<const T> from, T* to, const Stream& stream) {
  copy_bytes(to, from.data(), from.size_bytes(), stream);
}
template <typename T>
void to_host(const T* from, std::span<T> to, const Stream& stream) {
  copy_bytes(to.data(), from, to.size_bytes(), stream);
}

/// Work of a stream, recorded once and started as one. Work between the constructor and finish()
/// is recorded, not done; it must not allocate, nor wait for the GPU.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(Graph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(graph_, other.graph_);
    return *this;
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// `record` queues the work on `stream`.
  template <typename Record>
  static Graph of(const Stream& stream, Record&& record) {
    begin(stream);
    try {
      std::forward<Record>(record)();
    } catch (...) {
      abandon(stream);
      throw;
    }
    return end(stream);
  }
  void launch(const Stream& stream) const;

 private:
  static void begin(const Stream& stream);
  static void abandon(const Stream& stream) noexcept;
  static Graph end(const Stream& stream);
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace moevar::cuda
