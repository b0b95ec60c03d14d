#pragma once

#include <functional>
#include <memory>
#include <string>

#include "run/hang.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// Notices a run that hangs. A thread of every rank sends signs of life to rank 0 and hears its
/// own, over UDP: a rank that is stopped, or whose host is gone, falls silent whatever MPI does,
/// and the last packet tells where it was. Rank 0 watches all ranks, the others watch rank 0.
///
/// A packet is 104 bytes, one or a few a second and rank; nothing else is done while all is well.
class Watchdog {
 public:
  /// `on_hang` is called once, by the thread, on the rank that noticed, with a line that says who
  /// keeps the others; it ends the job. Collective. Throws EnvironmentError without a network.
  Watchdog(const mpi::Communicator& comm, Seconds limit,
           std::function<void(const std::string& line)> on_hang);
  /// Not collective: the other ranks do not take a rank whose watchdog has ended for a hung one
  /// before the limit.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moevar::run
