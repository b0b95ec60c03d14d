#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include <toml++/toml.h>

#include "study/study.hpp"

namespace moevar::study {

/// One key of a study file. The table of all of them is behind parsing, checking, --help and what
/// is recorded: a new key is a member of Study and a line in keys.cpp.
struct Key {
  std::string name;  ///< "section.key"
  std::string help;  ///< what it is, its unit and its range
  /// Sets the member from a TOML value. Throws InputError that says what would be right.
  std::function<void(Study&, const toml::node&)> read;
  /// The member's value as TOML; empty where it is not set.
  std::function<std::string(const Study&)> write;
  bool is_text = false;  ///< its value is one text
};

/// The text as TOML: in quotation marks, on one line, control characters escaped. toml++ writes
/// several lines between ''', whose first line end a reader drops.
std::string quoted(std::string_view text);

/// All keys, in the order in which a study file is best read.
std::span<const Key> keys();

}  // namespace moevar::study
