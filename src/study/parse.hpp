#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "study/study.hpp"

namespace moevar::study {

/// A study and where each of its values was written, for errors that are found later.
struct ParsedStudy {
  Study study;
  std::string path;                                        ///< the study file
  std::map<std::string, std::string, std::less<>> origin;  ///< "fleet.devices" → "study.toml:12"

  /// "study.toml:12: fleet.devices": the start of an error message about a key; without the line
  /// where the value is a default.
  [[nodiscard]] std::string at(std::string_view key) const;
};

/// Reads a study file's text. `path` names it in errors. `overrides` are "a.b=c", each after the
/// last; c is TOML, or plain text where it is no TOML. Everything that needs nothing but the text
/// is checked. Throws InputError: one line that names the file, the line, the key and what would be
/// right.
ParsedStudy parse(std::string_view text, const std::string& path,
                  const std::vector<std::string>& overrides = {});

/// The same for what to_toml() wrote, where every key stands: none counts as given but those of
/// `overrides`.
ParsedStudy parse_expanded(std::string_view text, const std::string& path,
                           const std::vector<std::string>& overrides = {});

/// A key of study files, for --help and the documents.
struct KeyHelp {
  std::string name;
  std::string default_value;  ///< as TOML
  std::string help;
};
std::vector<KeyHelp> key_help();

/// The study with every key and its value, as TOML that parse() reads back to an equal study.
std::string to_toml(const Study& study);

}  // namespace moevar::study
