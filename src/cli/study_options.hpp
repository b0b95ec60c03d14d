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

  void add_to(CLI::App& app);
  /// Throws InputError.
  [[nodiscard]] study::ParsedStudy parse(const std::string& text) const;
};

}  // namespace moevar::cli
