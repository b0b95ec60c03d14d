#include "run/resumption.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <sstream>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "record/record.hpp"
#include "run/session.hpp"

namespace moevar::run {

namespace {

/// The first line in which two expanded studies differ: "phases.steps is 16 there, 32 here".
std::string first_difference(const std::string& there, const std::string& here) {
  std::istringstream old_lines(there);
  std::istringstream new_lines(here);
  std::string section;
  for (std::string before, now; std::getline(old_lines, before) && std::getline(new_lines, now);) {
    if (before != now) {
      return fmt::format(R"({} has "{}" there, "{}" here)", section, printable(before, 200),
                         printable(now, 200));
    }
    section = now.starts_with('[') ? now : section;
  }
  return "one of them has more keys";
}

void check_same_inputs(const record::Manifest& before, const record::Manifest& now) {
  for (std::size_t i = 0; i < std::max(before.inputs.size(), now.inputs.size()); ++i) {
    if (i >= before.inputs.size() || i >= now.inputs.size() || before.inputs[i] != now.inputs[i]) {
      throw InputError(fmt::format(
          "{} is not the file that the run read (SHA-256 {}); put that one back",
          printable(i < now.inputs.size() ? now.inputs[i].path : before.inputs[i].path, 200),
          i < before.inputs.size() ? before.inputs[i].sha256 : "none"));
    }
  }
}

/// A run that is repeated with speed models measured before reads another file for them.
record::Manifest without_speeds(record::Manifest manifest) {
  std::erase_if(manifest.inputs, [](const record::InputFile& input) {
    return std::filesystem::path(input.path).filename() == "study.h5";
  });
  return manifest;
}

void check_same_study(const record::Manifest& before, const record::Manifest& now,
                      const std::string& folder) {
  if (before.study_toml != now.study_toml) {
    throw InputError(fmt::format(
        "{} holds a run of another study: {}; resume it with the study that it began with, or give "
        "another folder",
        folder, first_difference(before.study_toml, now.study_toml)));
  }
  check_same_inputs(before, now);
}

void check_same_devices(const record::RecordedRun& recorded,
                        const std::vector<DeviceIdentity>& fleet) {
  if (recorded.phases() == 0 || fleet.empty() || fleet.front().kind == "model") {
    return;
  }
  const auto before = recorded.fleet();
  for (std::size_t i = 0; i < std::min(before.size(), fleet.size()); ++i) {
    if (before[i].uuid != fleet[i].uuid) {
      throw EnvironmentError(fmt::format(
          "device {} was {} when the run began, and is {} now; a run goes on with the devices that "
          "it began with: start it on them, bound as then, or begin it anew in another folder",
          i, before[i].uuid, fleet[i].uuid));
    }
  }
}

/// Rank 0's part; the session's own part of the manifest is not there yet.
void look_at_earlier(const RunOptions& options, const RunIdentity& identity, Resumption& found,
                     record::Session& session) {
  std::error_code ignored;
  if (std::filesystem::is_directory(options.directory, ignored)) {
    found.lock = std::make_unique<files::FolderLock>(options.directory);
  }
  auto before = record::read_manifest(options.directory);
  if (!before) {
    found.lock.reset();  // the writer takes it as it begins
    if (record::holds_run(options.directory)) {
      throw InputError(fmt::format(
          "{} holds a run without its manifest.json, and nothing can go on without that; give "
          "another folder",
          options.directory.string()));
    }
    return;
  }
  check_same_study(*before, found.manifest, options.directory.string());
  found.manifest = std::move(*before);
  found.resumes = true;
  found.complete = found.manifest.complete;
  if (found.complete) {
    return;
  }
  const auto& recorded = found.recorded.emplace(
      options.directory, std::vector(identity.plan.begin(), identity.plan.end()));
  check_same_devices(recorded, identity.fleet);
  session.first_phase = static_cast<int>(recorded.phases());
  if (!found.manifest.sessions.empty()) {
    found.changes = record::differences(found.manifest.sessions.back(), session);
  }
  if (const auto& damaged = recorded.damaged()) {
    found.changes.push_back(fmt::format(
        "{} is damaged; it and the phases behind it are measured again", damaged->string()));
  }
}

}  // namespace

Resumption look_into(const mpi::Communicator& comm, const RunOptions& options,
                     const RunIdentity& identity) {
  Resumption found;
  auto session = describe_session(comm, options.program);
  mpi::on_root(comm, [&] {
    found.manifest.study_path = identity.study_path;
    found.manifest.study_text = options.study_text;
    found.manifest.overrides = options.overrides;
    found.manifest.study_toml = study::to_toml(identity.study);
    found.manifest.inputs = inputs_of(identity.study);
    if (options.repeats) {
      check_same_inputs(without_speeds(*options.repeats), without_speeds(found.manifest));
      if (!options.repeats->sessions.empty()) {
        found.changes = record::differences(options.repeats->sessions.back(), session);
      }
    }
    if (options.resume) {
      look_at_earlier(options, identity, found, session);
    }
    found.manifest.sessions.push_back(std::move(session));
  });
  std::array<std::int64_t, 2> flags{found.resumes ? 1 : 0, found.complete ? 1 : 0};
  comm.all_reduce_max(std::span(flags));
  found.resumes = flags[0] != 0;
  found.complete = flags[1] != 0;
  return found;
}

}  // namespace moevar::run
