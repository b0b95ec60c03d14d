#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "placement/engine_formats.hpp"
#include "workload/load_file.hpp"

namespace moevar::placement {

namespace {

constexpr std::string_view kSlotsKey = "num_slots";
constexpr std::string_view kAssignmentsKey = "initial_global_assignments";
constexpr std::string_view kBlank = " \t\r\n";

/// Reads the file from its begin to its end, token by token, and knows the line that it is in.
class Scanner {
 public:
  Scanner(std::string_view text, const std::string& path) : rest_(text), path_(path) {}

  [[noreturn]] void fail_with(const std::string& problem) const {
    throw InputError(fmt::format("{}, row {}: {}", path_, line_, problem));
  }
  [[noreturn]] void fail(std::string_view expected) const {
    const auto here = rest_.substr(0, rest_.find('\n'));
    fail_with(fmt::format("expected {}, not {}", expected,
                          rest_.empty() ? "the end" : fmt::format("\"{}\"", printable(here, 40))));
  }

  /// Past blanks, line ends and comments.
  void skip() {
    while (!rest_.empty()) {
      if (kBlank.find(rest_.front()) != std::string_view::npos) {
        advance(1);
      } else if (rest_.front() == '#') {
        advance(std::min(rest_.find('\n'), rest_.size()));
      } else {
        return;
      }
    }
  }

  bool take(char c) {
    skip();
    if (!rest_.starts_with(c)) {
      return false;
    }
    advance(1);
    return true;
  }

  std::int64_t take_number(std::string_view what) {
    skip();
    std::int64_t value = 0;
    const auto [stop, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc{} || value < 0 || static_cast<double>(value) > workload::kLargestId) {
      fail(fmt::format("{}, a whole number from 0", what));
    }
    advance(static_cast<std::size_t>(stop - rest_.data()));
    return value;
  }

  /// A key at the begin of a line, and its colon; empty at the end of the text.
  std::string_view take_key() {
    skip();
    while (take_line("---") || take_line("...")) {
      skip();
    }
    const auto key = rest_.substr(0, rest_.find_first_of(": \t\r\n"));
    if (!rest_.empty() && (!at_line_begin_ || key.empty())) {
      fail("a key at the begin of a line");
    }
    advance(key.size());
    if (!key.empty() && !take(':')) {
      fail("a colon");
    }
    return key;
  }

  void skip_line() { advance(std::min(rest_.find('\n'), rest_.size())); }

  /// Whether what comes next stands in the begin of a line, as no nested entry does.
  bool at_key() {
    skip();
    return rest_.empty() || (at_line_begin_ && rest_.front() != '-');
  }

 private:
  bool take_line(std::string_view line) {
    if (!at_line_begin_ || !rest_.starts_with(line)) {
      return false;
    }
    advance(line.size());
    return true;
  }

  void advance(std::size_t characters) {
    for (const char c : rest_.substr(0, characters)) {
      line_ += c == '\n' ? 1 : 0;
      at_line_begin_ = c == '\n';
    }
    rest_.remove_prefix(characters);
  }

  std::string_view rest_;
  const std::string& path_;
  std::size_t line_ = 1;
  bool at_line_begin_ = true;
};

std::vector<std::int32_t> take_list(Scanner& scanner) {
  std::vector<std::int32_t> experts;
  const auto take_expert = [&] {
    experts.push_back(static_cast<std::int32_t>(scanner.take_number("an expert")));
  };
  if (scanner.take('[')) {
    while (!scanner.take(']')) {
      take_expert();
      if (!scanner.take(',')) {
        if (!scanner.take(']')) {
          scanner.fail(R"("," or "]" after an expert)");
        }
        break;
      }
    }
    return experts;
  }
  while (scanner.take('-')) {
    take_expert();
  }
  if (experts.empty()) {
    scanner.fail("a layer's list of experts, [0, 1, ...]");
  }
  return experts;
}

using Assignments = std::map<std::int64_t, std::vector<std::int32_t>>;

Assignments take_assignments(Scanner& scanner) {
  Assignments assignments;
  while (!scanner.at_key()) {
    const auto layer = scanner.take_number("a layer");
    if (!scanner.take(':')) {
      scanner.fail("a colon after the layer");
    }
    if (assignments.contains(layer)) {
      scanner.fail_with(fmt::format("layer {} again; expected each layer once", layer));
    }
    assignments.emplace(layer, take_list(scanner));
  }
  return assignments;
}

}  // namespace

std::string write_tensorrt_llm(const PlacementFile& file, const std::string& /*path*/) {
  const auto& placement = file.placement;
  std::string text = fmt::format("{}:\n", kAssignmentsKey);
  for (int layer = 0; layer < placement.layers(); ++layer) {
    text += fmt::format("  {}: [{}]\n", file.layers[static_cast<std::size_t>(layer)],
                        fmt::join(placement.expert_of_slot.row(layer), ", "));
  }
  return text + fmt::format("{}: {}\nlayer_updates_per_iter: 0\n", kSlotsKey, placement.slots());
}

PlacementFile read_tensorrt_llm(std::string_view text, const std::string& path, int devices) {
  Scanner scanner(text, path);
  Assignments assignments;
  std::optional<std::int64_t> slots;
  for (auto key = scanner.take_key(); !key.empty(); key = scanner.take_key()) {
    if (key == kAssignmentsKey) {
      assignments = take_assignments(scanner);
    } else if (key == kSlotsKey) {
      slots = scanner.take_number("the number of slots");
    } else {
      do {
        scanner.skip_line();
      } while (!scanner.at_key());
    }
  }
  if (assignments.empty()) {
    throw InputError(fmt::format("{}: no layers under {}; expected a list of experts a layer", path,
                                 kAssignmentsKey));
  }
  const auto width = static_cast<std::size_t>(
      slots.value_or(static_cast<std::int64_t>(assignments.begin()->second.size())));
  std::vector<std::int64_t> layers;
  for (const auto& [layer, experts] : assignments) {
    if (experts.size() != width || width == 0) {
      throw InputError(fmt::format("{}, layer {}: {} slots; expected {}, {}", path, layer,
                                   experts.size(), std::max<std::size_t>(width, 1),
                                   slots ? "as num_slots says" : "as in the first layer"));
    }
    layers.push_back(layer);
  }
  Matrix<std::int32_t> expert_of_slot({layers.size(), width});
  std::size_t row = 0;
  for (const auto& entry : assignments) {
    std::ranges::copy(entry.second, expert_of_slot.row(row++).begin());
  }
  return engine_placement("tensorrt-llm", std::move(expert_of_slot), std::move(layers), devices,
                          path);
}

}  // namespace moevar::placement
