#include "record/manifest.hpp"

#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "record/whole_number.hpp"
#include "system/files.hpp"

namespace moevar::record {

namespace {

using Json = nlohmann::ordered_json;
constexpr auto kFile = "manifest.json";

Json to_json(const Session& session) {
  Json json;
  json["started"] = session.started;
  json["first_phase"] = session.first_phase;
  json["ranks"] = session.ranks;
  json["program"] = session.program;
  json["hosts"] = session.hosts;
  json["environment"] = session.environment;
  return json;
}

Session session_of(const Json& json) {
  Session session;
  json.at("started").get_to(session.started);
  session.first_phase = whole_number<int>(json, "first_phase");
  session.ranks = whole_number<int>(json, "ranks");
  json.at("program").get_to(session.program);
  json.at("hosts").get_to(session.hosts);
  json.at("environment").get_to(session.environment);
  return session;
}

/// Appends what differs between two sets of facts; `of` is behind a fact's name.
void compare(const Facts& before, const Facts& now, const std::string& of,
             std::vector<std::string>& lines) {
  const auto value_in = [](const Facts& facts, const std::string& name) {
    const auto found = facts.find(name);
    return found == facts.end() ? std::string("none") : found->second;
  };
  Facts all = before;
  all.insert(now.begin(), now.end());
  for (const auto& [name, ignored] : all) {
    const auto old_value = value_in(before, name);
    const auto new_value = value_in(now, name);
    if (old_value != new_value) {
      lines.push_back(
          printable(fmt::format("{}{}: {} before, {} now", name, of, old_value, new_value), 400));
    }
  }
}

}  // namespace

std::string to_json_text(const Manifest& manifest) {
  Json json;
  json["schema"] = 1;
  json["complete"] = manifest.complete;
  json["study_path"] = manifest.study_path;
  json["study_text"] = manifest.study_text;
  json["overrides"] = manifest.overrides;
  json["study_toml"] = manifest.study_toml;
  json["inputs"] = Json::array();
  for (const auto& input : manifest.inputs) {
    json["inputs"].push_back(
        {{"path", input.path}, {"bytes", input.bytes}, {"sha256", input.sha256}});
  }
  json["sessions"] = Json::array();
  for (const auto& session : manifest.sessions) {
    json["sessions"].push_back(to_json(session));
  }
  constexpr int kIndent = 2;
  return json.dump(kIndent, ' ', false, Json::error_handler_t::replace) + "\n";
}

Manifest manifest_from_json(std::string_view text, const std::string& name) {
  try {
    const auto json = Json::parse(text);
    if (json.at("schema") != 1) {
      throw InputError(
          fmt::format("{}: schema {}; this version reads 1", name, shown(json.at("schema"))));
    }
    Manifest manifest;
    json.at("complete").get_to(manifest.complete);
    json.at("study_path").get_to(manifest.study_path);
    json.at("study_text").get_to(manifest.study_text);
    json.at("overrides").get_to(manifest.overrides);
    json.at("study_toml").get_to(manifest.study_toml);
    for (const auto& input : json.at("inputs")) {
      manifest.inputs.push_back(
          {input.at("path"), whole_number<std::int64_t>(input, "bytes"), input.at("sha256")});
    }
    for (const auto& session : json.at("sessions")) {
      manifest.sessions.push_back(session_of(session));
    }
    return manifest;
  } catch (const Json::exception& error) {
    throw InputError(
        fmt::format("{}: not as moevar writes it: {}", name, printable(error.what(), 200)));
  }
}

void write_manifest(const std::filesystem::path& directory, const Manifest& manifest) {
  files::write_text(directory / kFile, to_json_text(manifest));
}

std::optional<Manifest> read_manifest(const std::filesystem::path& directory) {
  const auto path = directory / kFile;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return std::nullopt;
  }
  return manifest_from_json(files::read_text(path), path.string());
}

std::vector<std::string> differences(const Session& before, const Session& now) {
  std::vector<std::string> lines;
  compare(before.program, now.program, "", lines);
  for (const auto& [host, facts] : now.hosts) {
    if (const auto same = before.hosts.find(host); same != before.hosts.end()) {
      compare(same->second, facts, " of " + host, lines);
    } else if (!before.hosts.empty()) {
      lines.push_back(fmt::format("{} is a host that it did not run on before", host));
    }
  }
  compare(before.environment, now.environment, "", lines);
  return lines;
}

}  // namespace moevar::record
