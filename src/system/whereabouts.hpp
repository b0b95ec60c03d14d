#pragma once

#include <atomic>
#include <cstdint>

/// Where this process is in its work, for a thread that watches it. The thread that works writes,
/// at the cost of a store or two; others read, each value by itself.
namespace moevar::whereabouts {

namespace detail {

inline std::atomic<std::uint64_t> moves{0};
inline std::atomic<const char*> call{nullptr};
inline std::atomic<const char*> stage{"starting"};
inline std::atomic<std::int32_t> phase{-1};
inline std::atomic<std::int32_t> step{-1};
inline std::atomic<std::int32_t> first_device{0};
inline std::atomic<std::int32_t> devices{0};

inline void move() noexcept {
  // one thread writes: no read-modify-write is needed
  moves.store(moves.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace detail

/// While one lives, the process is in a call of MPI, where it may wait for others. `name` lives as
/// long as the program.
class InCall {
 public:
  explicit InCall(const char* name) noexcept {
    detail::call.store(name, std::memory_order_relaxed);
    detail::move();
  }
  ~InCall() {
    detail::call.store(nullptr, std::memory_order_relaxed);
    detail::move();
  }
  InCall(const InCall&) = delete;
  InCall& operator=(const InCall&) = delete;
};

/// A part of a run begins; `name` lives as long as the program.
inline void enter_stage(const char* name) noexcept {
  detail::stage.store(name, std::memory_order_relaxed);
  detail::step.store(-1, std::memory_order_relaxed);
  detail::move();
}
inline void enter_phase(std::int32_t index) noexcept {
  detail::phase.store(index, std::memory_order_relaxed);
  detail::move();
}
inline void enter_step(std::int32_t index) noexcept {
  detail::step.store(index, std::memory_order_relaxed);
  detail::move();
}
/// The process drives `count` devices of the fleet from `first` on.
inline void drive(std::int32_t first, std::int32_t count) noexcept {
  detail::first_device.store(first, std::memory_order_relaxed);
  detail::devices.store(count, std::memory_order_relaxed);
}

/// What a watching thread sees.
struct Position {
  std::uint64_t moves = 0;     ///< changes whenever the process gets anywhere
  const char* call = nullptr;  ///< the call of MPI that it is in; null: none
  const char* stage = "";
  std::int32_t phase = -1;  ///< -1: before the first
  std::int32_t step = -1;   ///< of the stage; -1: none
  std::int32_t first_device = 0;
  std::int32_t devices = 0;
};

inline Position now() noexcept {
  using detail::moves;
  constexpr auto kAny = std::memory_order_relaxed;
  return {moves.load(kAny),          detail::call.load(kAny), detail::stage.load(kAny),
          detail::phase.load(kAny),  detail::step.load(kAny), detail::first_device.load(kAny),
          detail::devices.load(kAny)};
}

}  // namespace moevar::whereabouts
