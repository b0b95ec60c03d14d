#include <algorithm>
#include <array>
#include <numeric>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "workload/json_input.hpp"
#include "workload/load_file.hpp"

namespace moevar::workload {

namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 4> kCountAxes{"step", "layer", "expert", ""};
constexpr std::array<std::string_view, 4> kIdAxes{"step", "layer", "token", "choice"};

/// `depth` levels of nesting without steps, one more with them.
Recording read_recording(const std::string& text, const std::string& path, const std::string& key,
                         std::span<const std::string_view> axes, std::size_t depth,
                         const NumberRule& rule) {
  const json document = parse_json(text, path);
  if (!document.is_object() || !document.contains(key)) {
    throw InputError(fmt::format("{}: {}; expected an object with \"{}\"", path,
                                 document.is_object()
                                     ? fmt::format("no key \"{}\"", key)
                                     : fmt::format("holds {}", document.type_name()),
                                 key));
  }
  const json& root = document[key];
  std::size_t levels = 0;
  for (const json* level = &root; level->is_array(); level = &level->front()) {
    ++levels;
    if (level->empty()) {
      break;
    }
  }
  const bool has_steps = levels > depth;
  axes = axes.subspan(has_steps ? 0 : 1, has_steps ? depth + 1 : depth);
  ArrayReader reader(path, key, axes, rule);
  std::vector<double> values = reader.read(root);

  std::array<std::size_t, 4> extents{1, 1, 1, 1};
  std::ranges::copy(reader.extents(), extents.begin() + (has_steps ? 0 : 1));
  Recording recording{Tensor<double, 4>(extents), std::vector<std::int64_t>(extents[1])};
  std::ranges::copy(values, recording.values.flat().begin());
  std::iota(recording.layers.begin(), recording.layers.end(), 0);
  return recording;
}

}  // namespace

Recording parse_counts_json(const std::string& text, const std::string& path) {
  return read_recording(text, path, "logical_count", kCountAxes, 2, kCountRule);
}

Recording parse_ids_json(const std::string& text, const std::string& path, double most_id) {
  return read_recording(text, path, "topk_ids", kIdAxes, 3, {"an expert id", most_id, true});
}

}  // namespace moevar::workload
