#include "workload/load_file.hpp"

#include <algorithm>
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

RecordedLoads parse_loads(const std::string& text, const std::string& path) {
  const Recording recorded = file_kind(path) == FileKind::json ? parse_counts_json(text, path)
                                                               : parse_counts_csv(text, path);
  const Tensor<double, 4>& counts = recorded.values;
  const std::size_t steps = counts.extent(0);
  std::vector<std::size_t> used;
  RecordedLoads loads;
  for (std::size_t layer = 0; layer < counts.extent(1); ++layer) {
    bool moe = false;
    for (std::size_t step = 0; step < steps && !moe; ++step) {
      moe = std::ranges::any_of(counts.row(step, layer), [](double count) { return count > 0.0; });
    }
    if (moe) {
      used.push_back(layer);
      loads.layers.push_back(recorded.layers[layer]);
    }
  }
  layers_to_use({}, used.size(), path);
  loads.counts = Tensor<double, 3>({steps, used.size(), counts.extent(2)});
  for (std::size_t step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < used.size(); ++i) {
      std::ranges::copy(counts.row(step, used[i]), loads.counts.row(step, i).begin());
    }
  }
  loads.model_layers = static_cast<int>(recorded.layers.back()) + 1;
  return loads;
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
