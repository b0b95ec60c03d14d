#include "record/speed_group.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "record/put.hpp"
#include "record/read_matrix.hpp"

namespace moevar::record {

namespace {

using placement::SpeedCurve;

/// A curve's measured points: without the (0, 0) that every curve begins with.
std::span<const double> points_of(std::span<const double> curve) {
  return curve.empty() ? curve : curve.subspan(1);
}

}  // namespace

void write_speeds(const hdf5::Group& group, const placement::SpeedModels& speeds) {
  std::size_t points = 0;
  for (const auto& curve : speeds) {
    points = std::max(points, points_of(curve.grid()).size());
  }
  const auto put_row_of_each = [&](const char* name, const char* unit, const auto& values_of) {
    Matrix<double> rows({speeds.size(), points}, std::numeric_limits<double>::quiet_NaN());
    for (std::size_t device = 0; device < speeds.size(); ++device) {
      const std::span<const double> values = values_of(speeds[device]);
      std::ranges::copy(values, rows.row(device).begin());
    }
    put(group, name, rows, unit);
  };
  using Values = std::span<const double>;
  put_row_of_each("tokens", "tokens", [](const SpeedCurve& c) { return points_of(c.grid()); });
  put_row_of_each("time_us", "us", [](const SpeedCurve& c) { return points_of(c.times()); });
  if (speeds.empty() || speeds.front().measurement().lower_us.empty()) {
    return;
  }
  put_row_of_each("lower_us", "us",
                  [](const SpeedCurve& c) { return Values(c.measurement().lower_us); });
  put_row_of_each("upper_us", "us",
                  [](const SpeedCurve& c) { return Values(c.measurement().upper_us); });
  std::vector<std::string> taken_from;
  taken_from.reserve(speeds.size());
  std::ranges::transform(speeds, std::back_inserter(taken_from),
                         [](const SpeedCurve& c) { return c.measurement().taken_from; });
  put_texts(group, "taken_from", taken_from);
}

placement::SpeedModels read_speeds(const hdf5::Group& group, std::size_t devices) {
  const auto tokens = read_matrix<double>(group, "tokens", devices, 0);
  const auto read = [&](const char* name) {
    return read_matrix<double>(group, name, devices, tokens.extent(1));
  };
  const auto times = read("time_us");
  const bool measured = group.has("lower_us");
  const auto lower = measured ? read("lower_us") : Matrix<double>{};
  const auto upper = measured ? read("upper_us") : Matrix<double>{};
  const auto taken_from =
      measured ? group.dataset("taken_from").read_texts() : std::vector<std::string>{};
  if (measured && taken_from.size() != devices) {
    throw InputError("taken_from: not a text for each device");
  }
  placement::SpeedModels models;
  models.reserve(devices);
  for (std::size_t device = 0; device < devices; ++device) {
    // shorter curves are filled up with NaN
    const auto row = tokens.row(device);
    const auto end = std::ranges::find_if(row, [](double n) { return std::isnan(n); });
    const auto part = [&](const Matrix<double>& of) {
      const auto values = of.row(device).first(static_cast<std::size_t>(end - row.begin()));
      return std::vector<double>(values.begin(), values.end());
    };
    if (measured) {
      models.emplace_back(part(tokens), part(times),
                          placement::Measurement{part(lower), part(upper), taken_from[device]});
    } else {
      models.emplace_back(part(tokens), part(times));
    }
  }
  return models;
}

}  // namespace moevar::record
