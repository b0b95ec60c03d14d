#include "system/signals.hpp"

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

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

Watch::Watch(std::function<void(int signal)> on_signal) {
  // a handler never waits
  if (::pipe2(pipe_.data(), O_CLOEXEC) != 0 || ::fcntl(pipe_[1], F_SETFL, O_NONBLOCK) != 0) {
    throw EnvironmentError(fmt::format("pipe2: {}", std::generic_category().message(errno)));
  }
  try {
    thread_ = std::thread([from = pipe_[0], act = std::move(on_signal)] {
      unsigned char byte = kStop;
      while (::read(from, &byte, 1) < 0 && errno == EINTR) {
      }
      if (byte != kStop) {
        act(byte);
      }
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
  }
}

Watch::~Watch() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &before_[i], nullptr);
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
