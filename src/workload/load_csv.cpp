#include <algorithm>
#include <array>
#include <span>
#include <tuple>

#include <fmt/format.h>

#include "base/error.hpp"
#include "workload/csv.hpp"
#include "workload/load_file.hpp"

namespace moevar::workload {

namespace {

constexpr std::array<std::string_view, 4> kCountColumns{"step", "layer", "expert", "count"};
constexpr std::array<std::string_view, 4> kIdColumns{"step", "layer", "token", "expert"};
constexpr std::size_t kValueColumn = 3;

struct Row {
  std::array<std::int64_t, 3> place{};  ///< step, layer, item
  double value = 0.0;
  std::size_t line = 0;
};

/// `columns`: step (which may be missing), layer, an item of it and the value.
std::vector<Row> read_rows(std::string_view text, const std::string& path,
                           std::span<const std::string_view, 4> columns, const NumberRule& rule) {
  const auto header = fmt::format("[step,]{}", fmt::join(columns.subspan(1), ","));
  CsvReader reader(text, path, columns, header);
  for (std::size_t column = 1; column < columns.size(); ++column) {
    reader.require(column);
  }
  std::vector<Row> rows;
  while (reader.next()) {
    Row row;
    row.line = reader.line();
    for (std::size_t column = 0; column < kValueColumn; ++column) {
      row.place[column] = reader.has(column) ? reader.index(column) : 0;
    }
    row.value = reader.number(kValueColumn);
    if (!obeys(row.value, rule)) {
      refuse_number(row.value, rule, path,
                    fmt::format("row {} (layer {}, {} {})", row.line, row.place[1], columns[2],
                                row.place[2]));
    }
    rows.push_back(row);
  }
  return rows;
}

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
  return arrange(read_rows(text, path, kCountColumns, kCountRule), false, kCountColumns[2], path);
}

Recording parse_ids_csv(const std::string& text, const std::string& path, double most_id) {
  const NumberRule rule{"an expert id", most_id, true};
  return arrange(read_rows(text, path, kIdColumns, rule), true, kIdColumns[2], path);
}

}  // namespace moevar::workload
