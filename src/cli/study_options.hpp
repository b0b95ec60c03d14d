#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "study/parse.hpp"

namespace moevar::cli {

/// STUDY.toml and --set, as run and plan take them; --help lists every key.
struct StudyOptions {
  std::string path;
  std::vector<std::string> overrides;

  /// `required`: whether STUDY.toml must be given.
  void add_to(CLI::App& app, bool required = true);
  /// Throws InputError.
  [[nodiscard]] study::ParsedStudy parse(const std::string& text) const;
};

}  // namespace moevar::cli
