#include "system/signals.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::signals {

namespace {

constexpr unsigned char kStop = 0;  ///< no signal's number

/// Where the handler writes; it can know nothing but a global.
std::atomic<int> written_to{-1};
static_assert(std::atomic<int>::is_always_lock_free);

void write_byte(int fd, unsigned char byte) noexcept {
  while (::write(fd, &byte, 1) < 0 && errno == EINTR) {
  }
}

void tell(int signal) {
  const int saved = errno;
  write_byte(written_to, static_cast<unsigned char>(signal));
  errno = saved;
}

}  // namespace

std::string name_of(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name == nullptr ? fmt::format("signal {}", signal) : fmt::format("SIG{}", name);
}

// Runs until it is told to stop or an order has come.
void Watch::listen(const Action& on_request, const Action& on_order) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kSameOne{300};
  Clock::time_point asked;
  for (;;) {
    unsigned char byte = kStop;
    while (::read(pipe_[0], &byte, 1) < 0 && errno == EINTR) {
    }
    const int signal = byte;
    if (signal == kStop) {
      return;
    }
    const bool asks = std::ranges::count(kRequests, signal) > 0;
    if (asks && requested_ == 0) {
      requested_ = signal;
      asked = Clock::now();
      on_request(signal);
    } else if (!asks || Clock::now() - asked > kSameOne) {
      on_order(signal);
      return;
    }
  }
}

Watch::Watch(Action on_request, Action on_order) {
  // a handler never waits
  if (::pipe2(pipe_.data(), O_CLOEXEC) != 0 || ::fcntl(pipe_[1], F_SETFL, O_NONBLOCK) != 0) {
    throw EnvironmentError(fmt::format("pipe2: {}", std::generic_category().message(errno)));
  }
  try {
    thread_ = std::thread([this, request = std::move(on_request), order = std::move(on_order)] {
      listen(request, order);
    });
  } catch (const std::system_error& error) {
    close_pipe();
    throw EnvironmentError(fmt::format("a thread for signals: {}", error.what()));
  }
  written_to = pipe_[1];
  struct sigaction action {};
  action.sa_handler = tell;
  action.sa_flags = SA_RESTART;
  sigfillset(&action.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &action, &before_[i]);
    // nohup, and a shell that starts a job in the background, want it not to be told
    const bool by_terminal = kSignals[i] == SIGHUP || kSignals[i] == SIGINT;
    if (by_terminal && before_[i].sa_handler == SIG_IGN) {
      ::sigaction(kSignals[i], &before_[i], nullptr);
    }
  }
}

// Once an end was asked for, another request on the way there changes nothing.
Watch::~Watch() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    auto after = before_[i];
    if (requested_ != 0 && std::ranges::count(kRequests, kSignals[i]) > 0) {
      after.sa_handler = SIG_IGN;
      after.sa_flags = 0;
    }
    ::sigaction(kSignals[i], &after, nullptr);
  }
  // one that came just now is still told: the thread then ends the process
  write_byte(pipe_[1], kStop);
  thread_.join();
  written_to = -1;
  close_pipe();
}

void Watch::close_pipe() noexcept {
  ::close(pipe_[0]);
  ::close(pipe_[1]);
}

}  // namespace moevar::signals
