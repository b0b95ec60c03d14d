#include "workload/load_file.hpp"

#include <cmath>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::workload {

bool obeys(double value, const NumberRule& rule) noexcept {
  return value >= 0.0 && value <= rule.most && (!rule.whole || value == std::floor(value));
}

void refuse_number(double value, const NumberRule& rule, const std::string& path,
                   std::string_view where) {
  throw InputError(fmt::format("{}, {}: {} is {}; expected a {}number from 0 to {:.0f}", path,
                               where, rule.name, value, rule.whole ? "whole " : "", rule.most));
}

FileKind file_kind(const std::string& path) {
  if (path.ends_with(".json")) {
    return FileKind::json;
  }
  if (path.ends_with(".csv")) {
    return FileKind::csv;
  }
  throw InputError(fmt::format("{}: its ending names no format; expected .json or .csv", path));
}

std::size_t layers_to_use(const RoutingShape& expected, std::size_t recorded,
                          const std::string& path) {
  if (recorded == 0) {
    throw InputError(fmt::format("{}: no layer has tokens; expected at least one MoE layer", path));
  }
  if (expected.layers < 0 || static_cast<std::size_t>(expected.layers) > recorded) {
    throw InputError(fmt::format("{}: {} MoE layers; expected {}, or a model of 1 to {} layers",
                                 path, recorded, expected.layers, recorded));
  }
  return expected.layers == 0 ? recorded : static_cast<std::size_t>(expected.layers);
}

}  // namespace moevar::workload
