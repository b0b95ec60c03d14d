#include <cstdio>
#include <exception>
#include <string>

#include <fmt/format.h>

#include "base/text.hpp"
#include "cli/commands.hpp"
#include "system/affinity.hpp"
#include "system/mpi.hpp"

namespace {

using moevar::ExitStatus;

/// One line on standard error, whatever the message holds.
void complain(const std::string& message) {
  fmt::print(stderr, "moevar: {}\n", moevar::printable(message, 2000));
}

/// Ends this rank where all failed alike, or where none knows of the others: rank 0 speaks for all.
int end_together(ExitStatus status, const std::string& message, const moevar::cli::Launch& launch) {
  if (launch.rank == 0) {
    complain(message);
  }
  moevar::mpi::finalize();
  return static_cast<int>(status);
}

/// Ends all ranks when this one alone failed. Before MPI runs, every rank reads the same command
/// line and the same files, so all fail alike.
int end_all(ExitStatus status, const std::string& message, const moevar::cli::Launch& launch) {
  if (!moevar::mpi::running()) {
    return end_together(status, message, launch);
  }
  complain(launch.ranks == 1 ? message
                             : fmt::format("{} (rank {} on {})", message, launch.rank,
                                           moevar::affinity::host_name()));
  moevar::mpi::abort(static_cast<int>(status));
  return static_cast<int>(status);
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
  const auto launch = moevar::cli::launched();
  try {
    return static_cast<int>(run_program(argc, argv, launch));
  } catch (const moevar::mpi::SharedError& error) {
    return end_together(error.status(), error.what(), launch);
  } catch (const moevar::Error& error) {
    return end_all(error.status(), error.what(), launch);
  } catch (const std::bad_alloc&) {
    return end_all(ExitStatus::environment, "out of memory", launch);
  } catch (const std::exception& error) {
    return end_all(ExitStatus::environment, error.what(), launch);
  }
}
