#pragma once

#include <array>
#include <atomic>
#include <csignal>
#include <functional>
#include <string>
#include <thread>

namespace moevar::signals {

/// "SIGTERM".
std::string name_of(int signal);

/// What a thread calls with the number of a signal that has come; everything may be called there
/// that a thread may call.
using Action = std::function<void(int signal)>;

/// While one lives, signals no longer end the process where it stands. The first SIGINT (Ctrl-C) or
/// SIGUSR1 (a job's warning that its time runs out) is a request to come to an end: `on_request` is
/// called, and requested() says so from then on. Any other, and a second one, is an order:
/// `on_order` is called, once. What comes within 0.3 s after a request is the same one told twice,
/// as a shell and a launcher may both pass it on. One at a time in a process. Throws
/// EnvironmentError.
///
/// The signals are caught, not blocked: libraries start threads before main() does, which block
/// nothing and which the kernel then gives them to.
class Watch {
 public:
  Watch(Action on_request, Action on_order);
  /// From here on signals do what they did before; once one has asked for an end, others that ask
  /// are ignored.
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// The signal that asked for an end; 0: none has.
  [[nodiscard]] int requested() const noexcept { return requested_; }

  static constexpr std::array kRequests{SIGINT, SIGUSR1};
  static constexpr std::array kSignals{SIGINT, SIGUSR1, SIGTERM, SIGHUP};

 private:
  void listen(const Action& on_request, const Action& on_order);
  void close_pipe() noexcept;
  std::array<int, 2> pipe_{-1, -1};
  std::array<struct sigaction, kSignals.size()> before_{};
  std::atomic<int> requested_{0};
  std::thread thread_;
};

}  // namespace moevar::signals
