#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "workload/load_file.hpp"

namespace moevar::workload {

/// Throws InputError, one line with the path and the place, for what is not JSON.
nlohmann::json parse_json(const std::string& text, const std::string& path);

/// Reads nested lists of numbers, all of one shape.
class ArrayReader {
 public:
  /// `axes`: a name for every level of nesting, outermost first. `path` and `axes` outlive the
  /// reader.
  ArrayReader(const std::string& path, std::string_view key, std::span<const std::string_view> axes,
              const NumberRule& rule)
      : path_(path), key_(key), axes_(axes), rule_(rule), place_(axes.size()) {}

  /// The numbers, row-major. Throws InputError, "path, place: ...", for another nesting, lists of
  /// different lengths or none, and for what is no number or does not obey the rule.
  std::vector<double> read(const nlohmann::json& root);

  /// Of what was read, outermost first.
  [[nodiscard]] const std::vector<std::size_t>& extents() const { return extents_; }

 private:
  [[noreturn]] void fail(std::size_t axis, const std::string& problem) const;

  /// The place of what lies below the first `axis` indices: "layer 3, expert 7".
  [[nodiscard]] std::string where(std::size_t axis) const;

  void descend(const nlohmann::json& node, std::size_t axis);

  const std::string& path_;
  std::string_view key_;
  std::span<const std::string_view> axes_;
  NumberRule rule_;
  std::vector<std::size_t> place_;
  std::vector<std::size_t> extents_;
  std::vector<double> values_;
};

}  // namespace moevar::workload
