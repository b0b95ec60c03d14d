#include <algorithm>
#include <array>
#include <numeric>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "workload/load_file.hpp"

namespace moevar::workload {

namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 4> kCountAxes{"step", "layer", "expert", ""};
constexpr std::array<std::string_view, 4> kIdAxes{"step", "layer", "token", "choice"};

/// Reads nested lists of numbers, all of one shape.
class ArrayReader {
 public:
  /// `axes`: a name for every level of nesting, outermost first.
  ArrayReader(const std::string& path, std::string_view key, std::span<const std::string_view> axes,
              const NumberRule& rule)
      : path_(path), key_(key), axes_(axes), rule_(rule), place_(axes.size()) {}

  std::vector<double> read(const json& root) {
    const json* level = &root;
    for (std::size_t axis = 0; axis < axes_.size(); ++axis) {
      if (!level->is_array() || level->empty()) {
        break;
      }
      extents_.push_back(level->size());
      level = &level->front();
    }
    descend(root, 0);
    return std::move(values_);
  }

  [[nodiscard]] const std::vector<std::size_t>& extents() const { return extents_; }

 private:
  [[noreturn]] void fail(std::size_t axis, const std::string& problem) const {
    throw InputError(fmt::format("{}, {}: {}", path_, where(axis), problem));
  }

  /// The place of what lies below the first `axis` indices: "layer 3, expert 7".
  [[nodiscard]] std::string where(std::size_t axis) const {
    std::string text(axis == 0 ? key_ : "");
    for (std::size_t i = 0; i < axis; ++i) {
      text += fmt::format("{}{} {}", i == 0 ? "" : ", ", axes_[i], place_[i]);
    }
    return text;
  }

  void descend(const json& node, std::size_t axis) {
    if (axis == axes_.size()) {
      if (!node.is_number()) {
        fail(axis, fmt::format("{} is {}; expected a number", rule_.name, node.type_name()));
      }
      const auto value = node.get<double>();
      if (!obeys(value, rule_)) {
        refuse_number(value, rule_, path_, where(axis));
      }
      values_.push_back(value);
      return;
    }
    if (!node.is_array()) {
      fail(axis, fmt::format("{} instead of a list of {}s", node.type_name(), axes_[axis]));
    }
    if (node.empty() || node.size() != extents_[axis]) {
      fail(axis, fmt::format("{} {}s; expected {}", node.size(), axes_[axis],
                             node.empty() ? "at least one" : std::to_string(extents_[axis])));
    }
    for (place_[axis] = 0; place_[axis] < node.size(); ++place_[axis]) {
      descend(node[place_[axis]], axis + 1);
    }
  }

  const std::string& path_;
  std::string_view key_;
  std::span<const std::string_view> axes_;
  NumberRule rule_;
  std::vector<std::size_t> place_;
  std::vector<std::size_t> extents_;
  std::vector<double> values_;
};

json parse(const std::string& text, const std::string& path) {
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, ...": the text after the code
    const std::string what = error.what();
    const auto code_end = what.find("] ");
    std::string reason = code_end == std::string::npos ? what : what.substr(code_end + 2);
    std::ranges::replace_if(
        reason, [](char c) { return static_cast<unsigned char>(c) < 0x20U; }, ' ');
    throw InputError(fmt::format("{}: not JSON: {}", path, reason));
  }
}

/// `depth` levels of nesting without steps, one more with them.
Recording read_recording(const std::string& text, const std::string& path, const std::string& key,
                         std::span<const std::string_view> axes, std::size_t depth,
                         const NumberRule& rule) {
  const json document = parse(text, path);
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
