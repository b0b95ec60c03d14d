#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// manifest.json: what a run was asked for, and by what and on what each of its sessions ran.
/// Nothing here is collective.
namespace moevar::record {

/// What is known of a program or a host: "kernel" → "6.1.0-18-amd64".
using Facts = std::map<std::string, std::string>;

/// A file that the study read.
struct InputFile {
  std::string path;
  std::int64_t bytes = 0;
  std::string sha256;
  bool operator==(const InputFile&) const = default;
};

/// One start of the program on a run: the first one, or one that resumed it.
struct Session {
  std::string started;  ///< UTC
  int first_phase = 0;  ///< with which it began
  int ranks = 0;
  Facts program;                       ///< versions, compiler, flags
  std::map<std::string, Facts> hosts;  ///< by host name
  Facts environment;                   ///< variables that change what a run does; never any other
};

struct Manifest {
  std::string study_path;
  std::string study_text;              ///< as given
  std::vector<std::string> overrides;  ///< --set, as given
  std::string study_toml;              ///< as expanded: every key with its value
  std::vector<InputFile> inputs;
  bool complete = false;
  std::vector<Session> sessions;
};

/// Writes manifest.json whole or not at all. Throws EnvironmentError.
void write_manifest(const std::filesystem::path& directory, const Manifest& manifest);
/// nullopt: there is none. Throws InputError where it is something else.
std::optional<Manifest> read_manifest(const std::filesystem::path& directory);

std::string to_json_text(const Manifest& manifest);
/// `name` is what errors call it. Throws InputError.
Manifest manifest_from_json(std::string_view text, const std::string& name);

/// What is not as it was, a line each: "kernel of node1: 6.1.0-18 before, 6.1.0-20 now". When they
/// began, and with how many ranks on which hosts, does not count.
std::vector<std::string> differences(const Session& before, const Session& now);

}  // namespace moevar::record
