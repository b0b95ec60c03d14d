#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>
#include <string_view>
#include <system_error>
#include <tuple>

#include <fmt/format.h>

#include "base/text.hpp"
#include "workload/csv.hpp"
#include "workload/requests.hpp"

namespace moevar::workload {

namespace {

constexpr std::array<std::string_view, 6> kColumns{"arrival",   "input",         "output",
                                                   "TIMESTAMP", "ContextTokens", "GeneratedTokens"};
constexpr std::string_view kHeader =
    "arrival,input,output or TIMESTAMP,ContextTokens,GeneratedTokens";
constexpr std::size_t kFormatColumns = 3;  ///< of either format: arrival, input, output

/// Whole seconds and what is left apart, so that no digit of a date-time is lost.
struct Instant {
  bool date_time = false;
  std::int64_t seconds = 0;
  double fraction = 0.0;
};

/// Takes what a date-time is made of off the front of a text; once something is missing, nothing
/// more is taken.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  int digits(std::size_t count) {
    int value = 0;
    const std::string_view taken = rest_.substr(0, count);
    ok_ = ok_ && taken.size() == count &&
          taken.find_first_not_of("0123456789") == std::string_view::npos;
    if (ok_) {
      std::from_chars(taken.data(), taken.data() + taken.size(), value);
      rest_.remove_prefix(count);
    }
    return value;
  }

  /// Whether the next character is one of these, which is then taken.
  bool takes(std::string_view any_of) {
    if (!ok_ || rest_.empty() || any_of.find(rest_.front()) == std::string_view::npos) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }

  void expect(std::string_view any_of) { ok_ = takes(any_of) && ok_; }

  /// Digits after a decimal point, as a fraction.
  double fraction() {
    double value = 0.0;
    double unit = 1.0;
    const std::string_view before = rest_;
    while (ok_ && !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9') {
      unit /= 10.0;
      value += unit * (rest_.front() - '0');
      rest_.remove_prefix(1);
    }
    ok_ = ok_ && rest_.size() < before.size();
    return value;
  }

  [[nodiscard]] bool at_end() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

/// YYYY-MM-DD HH:MM:SS[.fraction][Z or +HH:MM], a T in place of the blank too.
std::optional<Instant> parse_date_time(std::string_view text) {
  Scanner scan(text);
  const int year = scan.digits(4);
  scan.expect("-");
  const int month = scan.digits(2);
  scan.expect("-");
  const int day = scan.digits(2);
  scan.expect(" T");
  const int hour = scan.digits(2);
  scan.expect(":");
  const int minute = scan.digits(2);
  scan.expect(":");
  const int second = scan.digits(2);
  const double fraction = scan.takes(".") ? scan.fraction() : 0.0;
  int offset_minutes = 0;
  if (!scan.takes("Z")) {
    const bool east = scan.takes("+");
    if (east || scan.takes("-")) {
      const int hours = scan.digits(2);
      scan.expect(":");
      offset_minutes = (hours * 60 + scan.digits(2)) * (east ? 1 : -1);
    }
  }
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!scan.at_end() || !date.ok() || hour > 23 || minute > 59 || second > 59) {
    return std::nullopt;
  }
  const std::chrono::sys_seconds instant = std::chrono::sys_days(date) + std::chrono::hours(hour) +
                                           std::chrono::minutes(minute - offset_minutes) +
                                           std::chrono::seconds(second);
  return Instant{true, instant.time_since_epoch().count(), fraction};
}

/// The whole text as a T.
template <class T>
std::optional<T> parse(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

Instant read_arrival(const CsvReader& reader, std::size_t column) {
  const std::string_view text = reader.text(column);
  if (const auto date_time = parse_date_time(text)) {
    return *date_time;
  }
  const auto seconds = parse<double>(text);
  if (!seconds || !std::isfinite(*seconds) || *seconds < 0.0) {
    reader.fail(fmt::format(
        R"({} is "{}"; expected seconds from 0 on or a date-time YYYY-MM-DD HH:MM:SS.fraction)",
        kColumns[column], printable(text)));
  }
  return {false, 0, *seconds};
}

std::int32_t read_tokens(const CsvReader& reader, std::size_t column) {
  const std::string_view text = reader.text(column);
  const auto tokens = parse<std::int32_t>(text);
  if (!tokens || *tokens < 1 || *tokens > kMostTokens) {
    reader.fail(fmt::format(R"({} is "{}"; expected a whole number of tokens from 1 to {})",
                            kColumns[column], printable(text), kMostTokens));
  }
  return *tokens;
}

/// Where a file's format begins among kColumns.
std::size_t first_column(const CsvReader& reader) {
  const auto has_any = [&](std::size_t first) {
    return reader.has(first) || reader.has(first + 1) || reader.has(first + 2);
  };
  const std::size_t first = has_any(kFormatColumns) ? kFormatColumns : 0;
  if (first > 0 && has_any(0)) {
    reader.fail(fmt::format("columns of both formats; expected {}", kHeader));
  }
  for (std::size_t column = first; column < first + kFormatColumns; ++column) {
    reader.require(column);
  }
  return first;
}

}  // namespace

std::vector<Request> recorded_requests(const std::string& text, const std::string& path) {
  CsvReader reader(text, path, kColumns, kHeader);
  const std::size_t first_of_format = first_column(reader);
  std::vector<Request> requests;
  Instant first;
  Instant before;
  while (reader.next()) {
    const Instant arrival = read_arrival(reader, first_of_format);
    if (requests.empty()) {
      first = before = arrival;
    }
    const std::string_view arrival_text = reader.text(first_of_format);
    if (arrival.date_time != first.date_time) {
      reader.fail(fmt::format(R"({} is "{}"; expected {}, as in the rows above)",
                              kColumns[first_of_format], printable(arrival_text),
                              first.date_time ? "a date-time" : "seconds"));
    }
    if (std::tie(arrival.seconds, arrival.fraction) < std::tie(before.seconds, before.fraction)) {
      reader.fail(
          fmt::format(R"({} is "{}", earlier than in the row above; expected rows in order)",
                      kColumns[first_of_format], printable(arrival_text)));
    }
    before = arrival;
    requests.push_back({.arrival_s = static_cast<double>(arrival.seconds - first.seconds) +
                                     (arrival.fraction - first.fraction),
                        .input_tokens = read_tokens(reader, first_of_format + 1),
                        .output_tokens = read_tokens(reader, first_of_format + 2)});
  }
  return requests;
}

}  // namespace moevar::workload
