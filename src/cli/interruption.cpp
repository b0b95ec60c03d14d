#include "cli/interruption.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "conditions/cap_guard.hpp"
#include "system/mpi.hpp"
#include "system/signals.hpp"

namespace moevar::cli {

namespace {

bool is_moevar(std::int64_t pid) {
  std::error_code error;
  const auto other = std::filesystem::read_symlink(fmt::format("/proc/{}/exe", pid), error);
  return !error && other == std::filesystem::read_symlink("/proc/self/exe", error) && !error;
}

/// Time for the holders of limits to give them back and to end the job, this rank too, with the
/// status that only they know. Returns where they don't.
void let_holders_end_it(int signal) {
  using std::chrono_literals::operator""s;
  using std::chrono_literals::operator""ms;
  const auto holders = conditions::holders_of_job();
  if (holders.here > 0 && holders.here != ::getpid() && is_moevar(holders.here)) {
    // it may not have got the signal
    ::kill(static_cast<pid_t>(holders.here), signal);
    std::this_thread::sleep_for(conditions::kCallLimit + conditions::kPatience + 5s);
  } else if (holders.anywhere) {
    std::this_thread::sleep_for(conditions::kPatience + 3s);
  } else if (launched().rank != 0) {
    // where all ranks got the signal, rank 0 speaks for them
    std::this_thread::sleep_for(1500ms);
  }
}

void say(int signal, const Launch& launch, bool limits_are_back) noexcept {
  try {
    const auto line = fmt::format("moevar: stopped by {}{}; finished phases are kept{}\n",
                                  signals::name_of(signal),
                                  launch.ranks > 1 ? fmt::format(" (rank {})", launch.rank) : "",
                                  limits_are_back ? ", power limits are back" : "");
    std::fputs(line.c_str(), stderr);
  } catch (const std::exception&) {
    std::fputs("moevar: stopped by a signal\n", stderr);
  }
}

}  // namespace

void note_request(int signal) {
  if (launched().rank == 0) {
    std::fputs(
        fmt::format("moevar: {}: stops when this phase is recorded; once more ends at once\n",
                    signals::name_of(signal))
            .c_str(),
        stderr);
  }
}

void end_on_signal(int signal) {
  const auto launch = launched();
  const bool held = conditions::holds_limits();
  const bool all = conditions::restore_all_now();
  if (launch.rank == 0) {
    say(signal, launch, held && all);
  }
  if (!held) {
    let_holders_end_it(signal);
    if (launch.rank != 0) {  // nobody has ended it: it is the only one that was told
      say(signal, launch, false);
    }
  }
  const auto status = static_cast<int>(all ? ExitStatus::interrupted : ExitStatus::restore_failed);
  mpi::abort(status);
  ::_exit(status);
}

void end_hung(const std::string& line) {
  std::fputs(fmt::format("moevar: {}\n", line).c_str(), stderr);
  const bool all = conditions::restore_all_now();
  const auto status = static_cast<int>(all ? ExitStatus::environment : ExitStatus::restore_failed);
  mpi::abort(status);
  ::_exit(status);
}

}  // namespace moevar::cli
