#include "placement/speeds_file.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include <fmt/format.h>

#include "base/error.hpp"
#include "workload/csv.hpp"

namespace moevar::placement {

namespace {

using workload::CsvReader;

enum Column : std::size_t { kDevice, kTokens, kLatency, kRelative };
constexpr std::array<std::string_view, 4> kColumns{"device", "tokens", "latency_us",
                                                   "relative_time"};
constexpr std::string_view kHeader = "device,tokens,latency_us or device,relative_time";

struct Point {
  std::int64_t device = 0;
  double tokens = 1.0;
  double time_us = 0.0;
  std::size_t line = 0;
  bool relative = false;  ///< the only point of its device
};

double positive(const CsvReader& reader, Column column) {
  const double value = reader.number(column);
  if (!(value > 0.0) || !std::isfinite(value)) {
    reader.fail(fmt::format("{} is {}; expected a number above 0", kColumns[column], value));
  }
  return value;
}

std::vector<Point> read_points(const std::string& text, const std::string& path) {
  CsvReader reader(text, path, kColumns, kHeader, CsvReader::OtherColumns::skipped);
  reader.require(kDevice);
  const bool relative = reader.has(kRelative);
  if (relative && (reader.has(kTokens) || reader.has(kLatency))) {
    reader.fail(fmt::format("columns of both kinds of speeds; expected {}", kHeader));
  }
  if (!relative) {
    reader.require(kTokens);
    reader.require(kLatency);
  }
  std::vector<Point> points;
  while (reader.next()) {
    points.push_back({reader.index(kDevice), relative ? 1.0 : positive(reader, kTokens),
                      positive(reader, relative ? kRelative : kLatency), reader.line(), relative});
  }
  return points;
}

/// Requires rows for devices 0 ... devices − 1 and no others; `points` go by device.
void check_devices(const std::vector<Point>& points, const std::string& path, int devices) {
  const auto& last = points.back();
  if (last.device >= devices) {
    throw InputError(
        fmt::format("{}, row {}: speeds of device {}; expected those of {} devices, 0 to {}", path,
                    last.line, last.device, devices, devices - 1));
  }
  std::int64_t next = 0;
  for (const auto& point : points) {
    if (point.device > next) {
      break;
    }
    next = point.device + 1;
  }
  if (next < devices) {
    throw InputError(fmt::format("{}: no row for device {}; expected rows for {} devices, 0 to {}",
                                 path, next, devices, devices - 1));
  }
}

/// One device's points, by tokens.
SpeedCurve curve_of(std::span<const Point> points, const std::string& path) {
  std::vector<double> tokens;
  std::vector<double> times;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto& point = points[i];
    if (i > 0 && point.tokens == points[i - 1].tokens) {
      throw InputError(fmt::format(
          "{}, row {}: device {}{} again, as in row {}; expected one row", path, point.line,
          point.device, point.relative ? "" : fmt::format(" with {} tokens", point.tokens),
          points[i - 1].line));
    }
    if (i > 0 && point.time_us < points[i - 1].time_us) {
      throw InputError(fmt::format(
          "{}, row {}: device {} takes {} µs for {} tokens but {} µs for {} (row {}); expected "
          "times that do not fall as tokens rise",
          path, point.line, point.device, point.time_us, point.tokens, points[i - 1].time_us,
          points[i - 1].tokens, points[i - 1].line));
    }
    tokens.push_back(point.tokens);
    times.push_back(point.time_us);
  }
  return {std::move(tokens), std::move(times)};
}

}  // namespace

SpeedModels parse_speeds_csv(const std::string& text, const std::string& path, int devices) {
  auto points = read_points(text, path);
  std::ranges::stable_sort(points, [](const Point& a, const Point& b) {
    return a.device != b.device ? a.device < b.device : a.tokens < b.tokens;
  });
  check_devices(points, path, devices);
  SpeedModels speeds;
  for (auto begin = points.begin(); begin != points.end();) {
    const auto end = std::find_if(
        begin, points.end(), [&](const Point& point) { return point.device != begin->device; });
    speeds.push_back(curve_of({begin, end}, path));
    begin = end;
  }
  return speeds;
}

SpeedModels equal_speeds(int devices) {
  return SpeedModels(static_cast<std::size_t>(devices), SpeedCurve({1.0}, {1.0}));
}

}  // namespace moevar::placement
