#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <tuple>

#include <fmt/format.h>

#include "base/error.hpp"
#include "workload/load_file.hpp"

namespace moevar::workload {

namespace {

constexpr std::array<std::string_view, 4> kCountColumns{"step", "layer", "expert", "count"};
constexpr std::array<std::string_view, 4> kIdColumns{"step", "layer", "token", "expert"};
constexpr std::size_t kValueColumn = 3;
constexpr std::size_t kNoField = std::string_view::npos;

struct Row {
  std::array<std::int64_t, 3> place{};  ///< step, layer, item
  double value = 0.0;
  std::size_t line = 0;
};

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const auto begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) {
    return {};
  }
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

/// The fields of a line, without blanks around them.
std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> fields;
  while (true) {
    const auto comma = line.find(',');
    fields.push_back(trimmed(line.substr(0, comma)));
    if (comma == std::string_view::npos) {
      return fields;
    }
    line.remove_prefix(comma + 1);
  }
}

class CsvReader {
 public:
  CsvReader(const std::string& path, std::span<const std::string_view, 4> columns,
            const NumberRule& rule)
      : path_(path), columns_(columns), rule_(rule) {}

  std::vector<Row> read(std::string_view text) {
    std::vector<Row> rows;
    while (!text.empty()) {
      const auto end = text.find('\n');
      const std::string_view line = trimmed(text.substr(0, end));
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      ++line_;
      if (line.empty()) {
        continue;
      }
      if (width_ == 0) {
        read_header(split(line));
      } else {
        rows.push_back(read_row(split(line)));
      }
    }
    if (rows.empty()) {
      throw InputError(fmt::format("{}: no rows; expected [step,]{} and rows below", path_,
                                   fmt::join(columns_.subspan(1), ",")));
    }
    return rows;
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw InputError(fmt::format("{}, row {}: {}", path_, line_, problem));
  }

  void read_header(const std::vector<std::string_view>& names) {
    width_ = names.size();
    for (std::size_t field = 0; field < names.size(); ++field) {
      const auto column = std::ranges::find(columns_, names[field]);
      if (column == columns_.end() ||
          field_[static_cast<std::size_t>(column - columns_.begin())] != kNoField) {
        fail(fmt::format("{} column \"{}\"; expected [step,]{}",
                         column == columns_.end() ? "unknown" : "second", names[field],
                         fmt::join(columns_.subspan(1), ",")));
      }
      field_[static_cast<std::size_t>(column - columns_.begin())] = field;
    }
    for (std::size_t column = 1; column < columns_.size(); ++column) {
      if (field_[column] == kNoField) {
        fail(fmt::format("no column \"{}\"; expected [step,]{}", columns_[column],
                         fmt::join(columns_.subspan(1), ",")));
      }
    }
  }

  Row read_row(const std::vector<std::string_view>& fields) const {
    if (fields.size() != width_) {
      fail(fmt::format("{} fields; expected {}, as in the header", fields.size(), width_));
    }
    Row row;
    row.line = line_;
    for (std::size_t column = 0; column < kValueColumn; ++column) {
      if (field_[column] != kNoField) {
        const std::string_view field = fields[field_[column]];
        row.place[column] = number<std::int64_t>(field, column);
        if (row.place[column] < 0 || static_cast<double>(row.place[column]) > kLargestId) {
          fail(fmt::format("{} is {}; expected a whole number from 0 to {:.0f}", columns_[column],
                           field, kLargestId));
        }
      }
    }
    row.value = number<double>(fields[field_[kValueColumn]], kValueColumn);
    if (!obeys(row.value, rule_)) {
      refuse_number(
          row.value, rule_, path_,
          fmt::format("row {} (layer {}, {} {})", line_, row.place[1], columns_[2], row.place[2]));
    }
    return row;
  }

  template <class T>
  T number(std::string_view field, std::size_t column) const {
    T value{};
    const char* end = field.data() + field.size();
    const auto [stop, error] = std::from_chars(field.data(), end, value);
    if (error != std::errc{} || stop != end) {
      fail(fmt::format("{} is \"{}\"; expected a {}number", columns_[column], field,
                       column == kValueColumn ? "" : "whole "));
    }
    return value;
  }

  const std::string& path_;
  std::span<const std::string_view, 4> columns_;
  NumberRule rule_;
  std::array<std::size_t, 4> field_{kNoField, kNoField, kNoField, kNoField};
  std::size_t width_ = 0;
  std::size_t line_ = 0;
};

std::vector<std::int64_t> distinct(const std::vector<Row>& rows, std::size_t axis) {
  std::vector<std::int64_t> ids(rows.size());
  std::ranges::transform(rows, ids.begin(), [&](const Row& row) { return row.place[axis]; });
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

/// Brings the rows into order and requires, for every item from 0 to the largest there is of every
/// layer and step there is, one row or, with `repeats`, as many as the first item has.
Recording arrange(std::vector<Row> rows, bool repeats, std::string_view item,
                  const std::string& path) {
  std::ranges::sort(rows, {}, [](const Row& row) { return std::tuple(row.place, row.line); });
  const std::vector<std::int64_t> steps = distinct(rows, 0);
  std::vector<std::int64_t> layers = distinct(rows, 1);
  const auto items = static_cast<std::size_t>(distinct(rows, 2).back()) + 1;
  std::size_t copies = 1;
  while (repeats && copies < rows.size() && rows[copies].place == rows[0].place) {
    ++copies;
  }

  const std::size_t layer_rows = items * copies;
  const double all_rows = static_cast<double>(layer_rows) * static_cast<double>(layers.size()) *
                          static_cast<double>(steps.size());
  const auto place_of = [&](std::size_t i) {
    return std::array<std::int64_t, 3>{steps[i / layer_rows / layers.size()],
                                       layers[i / layer_rows % layers.size()],
                                       static_cast<std::int64_t>(i / copies % items)};
  };
  const auto fail = [&](std::string_view problem, const Row& row) {
    throw InputError(fmt::format("{}{}: {} for step {}, layer {}, {} {}; expected {}", path,
                                 row.line == 0 ? "" : fmt::format(", row {}", row.line), problem,
                                 row.place[0], row.place[1], item, row.place[2], copies));
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (static_cast<double>(i) >= all_rows || rows[i].place < place_of(i)) {
      fail("one row too many", rows[i]);
    }
    if (rows[i].place > place_of(i)) {
      fail("too few rows", {place_of(i)});
    }
  }
  if (static_cast<double>(rows.size()) < all_rows) {
    fail("too few rows", {place_of(rows.size())});
  }

  Recording recording{Tensor<double, 4>({steps.size(), layers.size(), items, copies}),
                      std::move(layers)};
  std::ranges::transform(rows, recording.values.flat().begin(),
                         [](const Row& row) { return row.value; });
  return recording;
}

}  // namespace

Recording parse_counts_csv(const std::string& text, const std::string& path) {
  CsvReader reader(path, kCountColumns, kCountRule);
  return arrange(reader.read(text), false, kCountColumns[2], path);
}

Recording parse_ids_csv(const std::string& text, const std::string& path, double most_id) {
  CsvReader reader(path, kIdColumns, {"an expert id", most_id, true});
  return arrange(reader.read(text), true, kIdColumns[2], path);
}

}  // namespace moevar::workload
