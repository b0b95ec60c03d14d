#include "workload/json_input.hpp"

#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::workload {

using nlohmann::json;

json parse_json(const std::string& text, const std::string& path) {
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, ...": the text after the code
    const std::string what = error.what();
    const auto code_end = what.find("] ");
    // which quotes the file, however long its text is there
    const auto reason = code_end == std::string::npos ? what : what.substr(code_end + 2);
    throw InputError(fmt::format("{}: not JSON: {}", path, printable(reason, 240)));
  }
}

std::vector<double> ArrayReader::read(const json& root) {
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

void ArrayReader::fail(std::size_t axis, const std::string& problem) const {
  throw InputError(fmt::format("{}, {}: {}", path_, where(axis), problem));
}

std::string ArrayReader::where(std::size_t axis) const {
  std::string text(axis == 0 ? key_ : "");
  for (std::size_t i = 0; i < axis; ++i) {
    text += fmt::format("{}{} {}", i == 0 ? "" : ", ", axes_[i], place_[i]);
  }
  return text;
}

void ArrayReader::descend(const json& node, std::size_t axis) {
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

}  // namespace moevar::workload
