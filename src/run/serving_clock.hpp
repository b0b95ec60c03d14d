#pragma once

#include <algorithm>
#include <chrono>
#include <span>
#include <thread>

#include "system/mpi.hpp"

namespace moevar::run {

/// The time of a serving run, seconds since its start, the same on every rank: virtual, or rank 0's
/// real one. Every member is collective.
class ServingClock {
 public:
  ServingClock(const mpi::Communicator& comm, bool real) : comm_(comm), real_(real) {
    comm_.barrier();
    start_ = Clock::now();
  }

  double now() {
    if (real_) {
      now_s_ = std::chrono::duration<double>(Clock::now() - start_).count();
      comm_.broadcast(std::span(&now_s_, 1));
    }
    return now_s_;
  }

  /// Time that passes while something runs: in real time it has passed already.
  void ran(double seconds) { now_s_ += real_ ? 0.0 : seconds; }
  /// Nothing is done for that long.
  void idle(double seconds) { wait_until(now() + seconds); }
  void wait_until(double time_s) {
    if (!real_) {
      now_s_ = std::max(now_s_, time_s);
      return;
    }
    if (comm_.is_root()) {
      // sleeping is not exact to a millisecond's part
      constexpr std::chrono::microseconds kAwake(200);
      const auto end = start_ + std::chrono::duration_cast<Clock::duration>(
                                    std::chrono::duration<double>(time_s));
      std::this_thread::sleep_until(end - kAwake);
      while (Clock::now() < end) {
      }
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  const mpi::Communicator& comm_;
  bool real_;
  double now_s_ = 0.0;
  Clock::time_point start_;
};

}  // namespace moevar::run
