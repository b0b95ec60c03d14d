#include "workload/csv.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "workload/load_file.hpp"

namespace moevar::workload {

namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const auto begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) {
    return {};
  }
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

void split(std::string_view line, std::vector<std::string_view>& fields) {
  fields.clear();
  while (true) {
    const auto comma = line.find(',');
    fields.push_back(trimmed(line.substr(0, comma)));
    if (comma == std::string_view::npos) {
      return;
    }
    line.remove_prefix(comma + 1);
  }
}

/// The whole field as a T; false where it is none.
template <class T>
bool parse(std::string_view field, T& value) {
  const char* end = field.data() + field.size();
  const auto [stop, error] = std::from_chars(field.data(), end, value);
  return error == std::errc{} && stop == end;
}

}  // namespace

CsvReader::CsvReader(std::string_view text, const std::string& path,
                     std::span<const std::string_view> columns, std::string_view header,
                     OtherColumns others)
    : rest_(text),
      path_(path),
      columns_(columns),
      header_(header),
      place_(columns.size(), kNowhere) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (rest_.starts_with(kByteOrderMark)) {
    rest_.remove_prefix(kByteOrderMark.size());
  }
  std::string_view line;
  if (!next_line(line)) {
    return;
  }
  split(line, fields_);
  width_ = fields_.size();
  for (std::size_t field = 0; field < width_; ++field) {
    const auto column = std::ranges::find(columns_, fields_[field]);
    const auto which = static_cast<std::size_t>(column - columns_.begin());
    const bool unknown = column == columns_.end();
    if (unknown && others == OtherColumns::skipped) {
      continue;
    }
    if (unknown || place_[which] != kNowhere) {
      fail(fmt::format("{} column \"{}\"; expected {}", unknown ? "unknown" : "second",
                       printable(fields_[field]), header_));
    }
    place_[which] = field;
  }
}

bool CsvReader::next_line(std::string_view& line) {
  while (!rest_.empty()) {
    const auto end = rest_.find('\n');
    line = trimmed(rest_.substr(0, end));
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    ++line_;
    if (!line.empty()) {
      return true;
    }
  }
  return false;
}

bool CsvReader::next() {
  std::string_view line;
  if (!next_line(line)) {
    if (!any_row_) {
      throw InputError(fmt::format("{}: no rows; expected {} and rows below", path_, header_));
    }
    return false;
  }
  any_row_ = true;
  split(line, fields_);
  if (fields_.size() != width_) {
    fail(fmt::format("{} fields; expected {}, as in the header", fields_.size(), width_));
  }
  return true;
}

void CsvReader::require(std::size_t column) const {
  if (width_ != 0 && !has(column)) {  // without any line, next() says what is wrong
    fail(fmt::format("no column \"{}\"; expected {}", columns_[column], header_));
  }
}

std::int64_t CsvReader::index(std::size_t column) const {
  std::int64_t value = 0;
  if (!parse(field(column), value)) {
    fail(fmt::format("{} is \"{}\"; expected a whole number", columns_[column],
                     printable(field(column))));
  }
  if (value < 0 || static_cast<double>(value) > kLargestId) {
    fail(fmt::format("{} is {}; expected a whole number from 0 to {:.0f}", columns_[column],
                     field(column), kLargestId));
  }
  return value;
}

double CsvReader::number(std::size_t column) const {
  double value = 0.0;
  if (!parse(field(column), value)) {
    fail(
        fmt::format("{} is \"{}\"; expected a number", columns_[column], printable(field(column))));
  }
  return value;
}

void CsvReader::fail(const std::string& problem) const {
  throw InputError(fmt::format("{}, row {}: {}", path_, line_, problem));
}

}  // namespace moevar::workload
