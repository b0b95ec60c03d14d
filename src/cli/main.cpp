#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <unistd.h>

#include <fmt/format.h>

#include "base/text.hpp"
#include "cli/commands.hpp"
#include "conditions/cap_guard.hpp"
#include "system/affinity.hpp"
#include "system/mpi.hpp"

namespace {

using moevar::ExitStatus;

/// One line on standard error, whatever the message holds.
void complain(const std::string& message) {
  fmt::print(stderr, "moevar: {}\n", moevar::printable(message, 2000));
}

/// A power limit that is not back outweighs whatever else went wrong.
ExitStatus final_status(ExitStatus status) {
  return moevar::conditions::a_restore_failed() ? ExitStatus::restore_failed : status;
}

/// Where all ranks are there: the gravest status of any, so that the launcher's does not hang on
/// which rank it sees first.
ExitStatus gravest_of_all(ExitStatus mine) noexcept {
  try {
    auto gravest = static_cast<std::int64_t>(mine);
    if (moevar::mpi::running()) {
      moevar::mpi::Communicator::world().all_reduce_max(std::span(&gravest, 1));
    }
    return static_cast<ExitStatus>(gravest);
  } catch (const std::exception&) {
    return mine;
  }
}

/// Ends this rank where all failed alike, or where none knows of the others: rank 0 speaks for all.
int end_together(ExitStatus status, const std::string& message, const moevar::cli::Launch& launch) {
  if (launch.rank == 0) {
    complain(message);
  }
  const auto last = static_cast<int>(final_status(status));
  moevar::mpi::finalize();
  return last;
}

/// The message and who says it; less where memory is short.
void complain_alone(const char* message, const moevar::cli::Launch& launch) noexcept {
  try {
    complain(launch.ranks == 1 ? message
                               : fmt::format("{} (rank {} on {})", message, launch.rank,
                                             moevar::affinity::host_name()));
  } catch (const std::exception&) {
    std::fputs("moevar: out of memory\n", stderr);
  }
}

/// Ends all ranks when this one alone failed. Before MPI runs, every rank reads the same command
/// line and the same files, so all fail alike.
int end_all(ExitStatus status, const char* message, const moevar::cli::Launch& launch) {
  if (!moevar::mpi::running()) {
    return end_together(status, message, launch);
  }
  complain_alone(message, launch);
  const auto last = static_cast<int>(final_status(status));
  moevar::mpi::abort(last);
  return last;
}

/// What no handler caught: the limits go back, where that can still be done. Whatever hangs, the
/// process ends, and then the guardian does it.
[[noreturn]] void end_uncaught() {
  static std::atomic_flag entered;
  constexpr auto kStatus = ExitStatus::environment;
  if (!entered.test_and_set()) {
    moevar::mpi::end_by_alarm(static_cast<int>(kStatus));
    std::fputs("moevar: an error that nothing caught\n", stderr);
    moevar::conditions::restore_all_now();
    moevar::mpi::abort(static_cast<int>(final_status(kStatus)));
  }
  ::_exit(static_cast<int>(kStatus));
}

/// Each `moevar caps` is for its own node, and speaks for itself whoever launched it.
moevar::cli::Launch launch_of(int argc, char** argv) {
  return argc > 1 && std::string_view(argv[1]) == "caps" ? moevar::cli::Launch{}
                                                         : moevar::cli::launched();
}

/// Parses the command line and runs the subcommand; throws what that throws.
ExitStatus run_program(int argc, char** argv, const moevar::cli::Launch& launch) {
  CLI::App app{"moevar: what GPU variability costs expert-parallel Mixture-of-Experts inference"};
  app.name("moevar");
  app.set_version_flag("--version", moevar::cli::version());
  app.require_subcommand(1);
  std::unique_ptr<moevar::cli::Command> chosen;
  std::vector<std::unique_ptr<moevar::cli::Command>> all;
  for (const auto& entry : moevar::cli::commands()) {
    auto* sub = app.add_subcommand(std::string(entry.name), std::string(entry.help));
    all.push_back(entry.make());
    auto* command = all.back().get();
    command->add_options(*sub);
    sub->callback(
        [&chosen, &slot = all, index = all.size() - 1] { chosen = std::move(slot[index]); });
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help, --version
      return launch.rank == 0 ? static_cast<ExitStatus>(app.exit(error)) : ExitStatus::ok;
    }
    throw moevar::InputError(fmt::format("{}; see moevar --help", error.what()));
  }
  return chosen->run(argc, argv);
}

}  // namespace

// NOLINTNEXTLINE(bugprone-exception-escape): what the handlers themselves throw may end the program
int main(int argc, char** argv) {
  std::set_terminate(end_uncaught);
  // on a full disk, or over a limit on file size, a write fails, and says so
  std::ignore = std::signal(SIGXFSZ, SIG_IGN);
  const auto launch = launch_of(argc, argv);
  try {
    return static_cast<int>(final_status(run_program(argc, argv, launch)));
  } catch (const moevar::mpi::SharedError& error) {
    return end_together(gravest_of_all(final_status(error.status())), error.what(), launch);
  } catch (const moevar::Error& error) {
    return end_all(error.status(), error.what(), launch);
  } catch (const std::bad_alloc&) {
    return end_all(ExitStatus::environment, "out of memory", launch);
  } catch (const std::exception& error) {
    return end_all(ExitStatus::environment, error.what(), launch);
  }
}
