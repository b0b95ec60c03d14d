#include "conditions/guardian.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <future>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "conditions/heal.hpp"

namespace moevar::conditions {

namespace {

constexpr int kSocket = 3;  ///< the guardian's end; locks follow
constexpr char kReady = 'r';
constexpr char kAllIsWell = 'w';
constexpr std::chrono::milliseconds kStartLimit{30'000};  ///< a busy node loads libraries slowly
constexpr std::chrono::milliseconds kEndLimit{2'000};

[[noreturn]] void fail(const char* call) {
  throw EnvironmentError(fmt::format("the guardian of power limits cannot be started: {}: {}", call,
                                     std::generic_category().message(errno)));
}

/// What a scheduler or a terminal may send. The guardian goes when its work is done; limits on file
/// size and time must not end it either.
constexpr std::array kOwnersSignals{SIGINT,  SIGTERM, SIGHUP,  SIGUSR1,
                                    SIGUSR2, SIGPIPE, SIGXFSZ, SIGXCPU};

void ignore_signals() {
  for (const int signal : kOwnersSignals) {
    ::signal(signal, SIG_IGN);
  }
}

/// What the child needs, put together before the fork: after it, in a process that had threads, no
/// memory may be asked for.
struct Start {
  std::vector<std::string> words;
  std::vector<char*> arguments;  ///< of `words`, null-terminated
  std::vector<int> descriptors;  ///< become 0, 1, 2, ...
  std::vector<int> parked;       ///< room for their copies
};

/// In the child of the fork: a new session, a fork more so that no terminal can be had and nobody
/// waits for the guardian, and the new program. Only calls that are safe after a fork.
[[noreturn]] void become_guardian(Start& start) {
  if (::setsid() < 0) {
    ::_exit(1);
  }
  if (const pid_t child = ::fork(); child != 0) {
    ::_exit(child < 0 ? 1 : 0);
  }
  // the owner's handlers are not for this process
  ignore_signals();
  sigset_t none{};
  sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  // above all targets first, so that none is overwritten before it is used
  const int above = 64 + static_cast<int>(start.descriptors.size());
  for (std::size_t i = 0; i < start.descriptors.size(); ++i) {
    start.parked[i] = ::fcntl(start.descriptors[i], F_DUPFD, above);
  }
  for (std::size_t i = 0; i < start.parked.size(); ++i) {
    if (::dup2(start.parked[i], static_cast<int>(i)) < 0) {
      ::_exit(1);
    }
  }
  const auto first_other = static_cast<unsigned>(start.descriptors.size());
  if (::close_range(first_other, ~0U, 0) != 0) {  // a kernel before 5.9
    for (int fd = static_cast<int>(first_other); fd < 65536; ++fd) {
      ::close(fd);
    }
  }
  if (::chdir("/") == 0) {
    ::execv(start.arguments.front(), start.arguments.data());
  }
  ::_exit(1);
}

/// Owns descriptors until they are no longer needed here.
class Descriptors {
 public:
  Descriptors() = default;
  ~Descriptors() { close_all(); }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;
  int add(int fd, const char* call) {
    if (fd < 0) {
      fail(call);
    }
    all_.push_back(fd);
    return fd;
  }
  /// The only one, to whoever owns it from now on.
  int release() noexcept { return std::exchange(all_, {}).front(); }
  void close_all() noexcept {
    for (const int fd : all_) {
      ::close(fd);
    }
    all_.clear();
  }

 private:
  std::vector<int> all_;
};

/// Whether something is to be read, or the other end is gone, within that time.
bool readable(int fd, std::chrono::milliseconds limit) {
  pollfd one{fd, POLLIN, 0};
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    const int found = ::poll(&one, 1, static_cast<int>(std::max<long>(left.count(), 0)));
    if (found >= 0 || errno != EINTR) {
      return found > 0;
    }
  }
}

void log(const std::string& text) {
  fmt::print(stderr, "guardian {}: {}\n", ::getpid(), text);
  std::fflush(stderr);
}

/// Heals a GPU, again and again while its driver refuses.
bool heal_at_last(const std::filesystem::path& folder, const std::string& uuid) {
  constexpr int kTries = 10;
  constexpr std::chrono::seconds kPause{1};
  for (int attempt = 1;; ++attempt) {
    const auto outcome = heal(folder, uuid);
    log(outcome.text);
    if (outcome.healed || outcome.theirs || attempt == kTries) {
      return outcome.healed;
    }
    std::this_thread::sleep_for(kPause);
  }
}

/// Each GPU by a thread of its own: one that is lost, or hangs, keeps no other waiting.
bool heal_all(const std::filesystem::path& folder, const std::vector<std::string>& uuids) {
  std::vector<std::future<bool>> healed;
  healed.reserve(uuids.size());
  for (const auto& uuid : uuids) {
    // without a thread to be had, get() does the work
    healed.push_back(std::async([&folder, &uuid] { return heal_at_last(folder, uuid); }));
  }
  bool all = true;
  for (auto& one : healed) {
    all = one.get() && all;
  }
  return all;
}

}  // namespace

Guardian::Guardian(const std::string& program, const std::filesystem::path& folder,
                   const std::vector<std::string>& uuids, std::span<const GpuLock> locks) {
  Descriptors ours;
  Descriptors owners;  // until the guardian is ready
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    fail("socketpair");
  }
  const int socket = owners.add(ends[0], "socketpair");
  const int theirs = ours.add(ends[1], "socketpair");
  const int null = ours.add(::open("/dev/null", O_RDWR | O_CLOEXEC), "open(/dev/null)");
  int log_file = ::open((folder / "guardian.log").c_str(),
                        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  log_file = log_file < 0 ? null : ours.add(log_file, "open");

  Start start;
  start.words = {program, "caps", "guard", folder.string()};
  start.words.insert(start.words.end(), uuids.begin(), uuids.end());
  for (auto& word : start.words) {
    start.arguments.push_back(word.data());
  }
  start.arguments.push_back(nullptr);
  start.descriptors = {null, log_file, log_file, theirs};
  for (const auto& lock : locks) {
    start.descriptors.push_back(lock.descriptor());
  }
  start.parked.resize(start.descriptors.size());

  // no handler of this process runs in the child before the child has its own
  sigset_t every{};
  sigset_t before{};
  sigfillset(&every);
  ::pthread_sigmask(SIG_SETMASK, &every, &before);
  const pid_t child = ::fork();
  if (child == 0) {
    become_guardian(start);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child < 0) {
    fail("fork");
  }
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  // its end belongs to it alone, so that its death is seen here
  ours.close_all();
  char word = 0;
  if (!readable(socket, kStartLimit) || ::recv(socket, &word, 1, 0) != 1 || word != kReady) {
    throw EnvironmentError(fmt::format(
        "the guardian of power limits did not start ({}/guardian.log)", folder.string()));
  }
  socket_ = owners.release();
}

Guardian::~Guardian() {
  if (socket_ >= 0) {
    ::close(socket_);
  }
}

void Guardian::dismiss() const noexcept {
  if (::send(socket_, &kAllIsWell, 1, MSG_NOSIGNAL) == 1) {
    readable(socket_, kEndLimit);
  }
}

bool stand_guard(const std::filesystem::path& folder, const std::vector<std::string>& uuids) {
  ignore_signals();
  // a client from the start: the driver stays loaded, and is found although its library may go
  if (!nvml::available()) {
    log(nvml::why_unavailable());
    return false;
  }
  if (::send(kSocket, &kReady, 1, MSG_NOSIGNAL) != 1) {
    return false;
  }
  char word = 0;
  ssize_t got = 0;
  while ((got = ::read(kSocket, &word, 1)) < 0 && errno == EINTR) {
  }
  if (got == 1 && word == kAllIsWell) {
    return true;
  }
  log("the owner died; its power limits are put back");
  return heal_all(folder, uuids);
}

}  // namespace moevar::conditions
