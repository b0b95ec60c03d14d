#pragma once

#include <cstddef>
#include <memory>

namespace moevar::cuda {
class Stream;
}

namespace moevar::exchange {

/// What to do where a GPU does not come to an end.
constexpr const char* kWorkAdvice =
    "a GPU or another rank does not go on; the other ranks' last lines and the driver's log "
    "(dmesg, "
    "Xid) tell which";

/// What moves bytes between lanes and the host, in the order of streams. A GPU does; in tests the
/// host does, with streams that are names alone and never looked into.
class CopyEngine {
 public:
  CopyEngine() = default;
  virtual ~CopyEngine() = default;
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;
  CopyEngine(CopyEngine&&) = delete;
  CopyEngine& operator=(CopyEngine&&) = delete;

  /// Host memory that lanes copy from and to without a detour.
  virtual std::shared_ptr<std::byte> host_memory(std::size_t bytes) = 0;

  /// Queues a copy from anywhere to anywhere.
  virtual void copy(void* to, const void* from, std::size_t bytes, const cuda::Stream& stream) = 0;

  /// From now on there are so many points, none of them marked.
  virtual void make_points(std::size_t count) = 0;
  /// A point becomes the end of what `stream` has been given so far.
  virtual void mark(std::size_t point, const cuda::Stream& stream) = 0;
  /// What `stream` is given later waits for a point as it was last marked, if ever.
  virtual void hold(std::size_t point, const cuda::Stream& stream) = 0;
  /// Whether a marked point is behind its stream. Throws where the device failed.
  virtual bool reached(std::size_t point) = 0;
  /// Whether `stream` has done everything. Throws as reached() does.
  virtual bool done(const cuda::Stream& stream) = 0;
};

}  // namespace moevar::exchange
