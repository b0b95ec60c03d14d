#pragma once

#include <array>
#include <csignal>
#include <functional>
#include <string>
#include <thread>

namespace moevar::signals {

/// "SIGTERM".
std::string name_of(int signal);

/// While one lives, SIGINT, SIGTERM, SIGHUP and SIGUSR1 (Slurm's warning) no longer end the process
/// where it stands: a thread calls `on_signal` with the first that comes, where everything may be
/// called that a thread may call. One at a time in a process. Throws EnvironmentError.
///
/// The signals are caught, not blocked: libraries start threads before main() does, which block
/// nothing and which the kernel then gives them to.
class Watch {
 public:
  explicit Watch(std::function<void(int signal)> on_signal);
  /// From here on signals do what they did before.
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGUSR1};

 private:
  void close_pipe() noexcept;
  std::array<int, 2> pipe_{-1, -1};
  std::array<struct sigaction, kSignals.size()> before_{};
  std::thread thread_;
};

}  // namespace moevar::signals
