#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.hpp"

/// The subcommands: one file each, one line each in commands.cpp.
namespace moevar::cli {

/// A subcommand: adds its options to the parser, then runs with what was given.
class Command {
 public:
  virtual ~Command() = default;
  virtual void add_options(CLI::App& app) = 0;
  /// Throws moevar::Error. `argc`/`argv` are the process's, for MPI_Init.
  virtual ExitStatus run(int argc, char** argv) = 0;
};

struct CommandEntry {
  std::string_view name;
  std::string_view help;
  std::unique_ptr<Command> (*make)();
};

/// Every placement policy with its line of help, for the end of a --help.
std::string policy_help();

const std::vector<CommandEntry>& commands();

std::unique_ptr<Command> make_run_command();
std::unique_ptr<Command> make_plan_command();
std::unique_ptr<Command> make_place_command();
std::unique_ptr<Command> make_export_command();
std::unique_ptr<Command> make_fleet_command();
std::unique_ptr<Command> make_doctor_command();
std::unique_ptr<Command> make_caps_command();

/// What a launcher says of this process before MPI starts; rank 0 of 1 without a launcher.
struct Launch {
  int rank = 0;
  int ranks = 1;
};
Launch launched();

/// The program's version, with the revision it was built from where that is known.
std::string version();
/// Of this build: "moevar", "compiler", "flags", "CUDA".
std::map<std::string, std::string> build_facts();

}  // namespace moevar::cli
