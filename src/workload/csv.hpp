#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moevar::workload {

/// Reads a CSV text row by row: comma-separated, blanks around fields and blank lines do not count,
/// and the first line names the columns, in any order. All that fails throws InputError, "path,
/// row N: ...", where the first line of the text is row 1.
class CsvReader {
 public:
  enum class OtherColumns { refused, skipped };

  /// Reads the header. `columns`: the names that mean something; a column is asked for by its place
  /// among them. `header` shows in messages what a header must be. Text, path, columns and header
  /// outlive the reader.
  CsvReader(std::string_view text, const std::string& path,
            std::span<const std::string_view> columns, std::string_view header,
            OtherColumns others = OtherColumns::refused);

  /// Goes to the next row; false where there is none. Throws where there was none at all, and for a
  /// row of another width than the header.
  bool next();

  [[nodiscard]] bool has(std::size_t column) const { return place_[column] != kNowhere; }
  /// Throws unless the header has the column.
  void require(std::size_t column) const;

  /// The row's field as it stands there, without blanks around it; valid until next().
  [[nodiscard]] std::string_view text(std::size_t column) const { return field(column); }
  /// The row's field as a whole number from 0 to 2^31 − 2.
  [[nodiscard]] std::int64_t index(std::size_t column) const;
  /// The row's field as a number, which may be NaN or infinite.
  [[nodiscard]] double number(std::size_t column) const;
  [[nodiscard]] std::size_t line() const noexcept { return line_; }

  [[noreturn]] void fail(const std::string& problem) const;

 private:
  static constexpr std::size_t kNowhere = std::string_view::npos;

  bool next_line(std::string_view& line);
  [[nodiscard]] std::string_view field(std::size_t column) const { return fields_[place_[column]]; }

  std::string_view rest_;
  const std::string& path_;
  std::span<const std::string_view> columns_;
  std::string_view header_;
  std::vector<std::size_t> place_;  ///< of every column among the fields
  std::vector<std::string_view> fields_;
  std::size_t width_ = 0;
  std::size_t line_ = 0;
  bool any_row_ = false;
};

}  // namespace moevar::workload
