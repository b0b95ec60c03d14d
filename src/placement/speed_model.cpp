#include "placement/speed_model.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::placement {

SpeedCurve::SpeedCurve(std::vector<double> tokens, std::vector<double> time_us,
                       Measurement measurement)
    : tokens_(std::move(tokens)),
      time_us_(std::move(time_us)),
      measurement_(std::move(measurement)) {
  if (tokens_.empty() || tokens_.size() != time_us_.size()) {
    throw InputError(fmt::format(
        "speed curve: {} token counts and {} times; as many of each, and at least one, are needed",
        tokens_.size(), time_us_.size()));
  }
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const double before = i == 0 ? 0.0 : tokens_[i - 1];
    if (!(tokens_[i] > before) || !std::isfinite(tokens_[i])) {
      throw InputError(
          fmt::format("speed curve: token count {} follows {}; they must rise from above 0",
                      tokens_[i], before));
    }
    if (!(time_us_[i] >= 0.0) || !std::isfinite(time_us_[i])) {
      throw InputError(
          fmt::format("speed curve: time {} µs at {} tokens; finite and >= 0 is needed",
                      time_us_[i], tokens_[i]));
    }
    if (i > 0) {
      time_us_[i] = std::max(time_us_[i], time_us_[i - 1]);
    }
  }
  const auto& [lower_us, upper_us, taken_from] = measurement_;
  const bool measured = !lower_us.empty() || !upper_us.empty();
  for (const auto* ends : {&lower_us, &upper_us}) {
    if (measured && (ends->size() != tokens_.size() ||
                     !std::ranges::all_of(*ends, [](double end) { return std::isfinite(end); }))) {
      throw InputError(
          fmt::format("speed curve: {} ends of intervals for {} points; as many finite "
                      "ones are needed",
                      ends->size(), tokens_.size()));
    }
  }
  tokens_.insert(tokens_.begin(), 0.0);
  time_us_.insert(time_us_.begin(), 0.0);
}

SpeedCurve::SpeedCurve(std::vector<double> tokens, std::vector<double> time_us)
    : SpeedCurve(std::move(tokens), std::move(time_us), Measurement{}) {}

double SpeedCurve::time_us(double tokens) const noexcept {
  const auto above = std::ranges::upper_bound(tokens_, tokens);
  const auto last = tokens_.size() - 1;
  const auto i =
      std::clamp<std::size_t>(static_cast<std::size_t>(above - tokens_.begin()), 1, last);
  const double slope = (time_us_[i] - time_us_[i - 1]) / (tokens_[i] - tokens_[i - 1]);
  return time_us_[i - 1] + slope * (tokens - tokens_[i - 1]);
}

double SpeedCurve::tokens_within(double time_us) const noexcept {
  const auto above = std::ranges::upper_bound(time_us_, time_us);
  const auto last = time_us_.size() - 1;
  const auto i =
      std::clamp<std::size_t>(static_cast<std::size_t>(above - time_us_.begin()), 1, last);
  const double rise = time_us_[i] - time_us_[i - 1];
  if (rise <= 0.0) {
    return std::numeric_limits<double>::infinity();
  }
  return tokens_[i - 1] + (tokens_[i] - tokens_[i - 1]) * (time_us - time_us_[i - 1]) / rise;
}

std::vector<double> profile_grid(int slots, int tile, double max_tokens, int points) {
  const double lowest = slots;
  const double ratio = std::pow(std::max(max_tokens / lowest, 1.0), 1.0 / (points - 1));
  const double step = static_cast<double>(slots) * tile;
  std::vector<double> grid;
  double tokens = lowest;
  for (int i = 0; i < points; ++i, tokens *= ratio) {
    const double on_edge = std::ceil(tokens / step) * step;
    const double even = std::ceil(tokens / slots) * slots;
    const double point = tokens >= step / 2 ? on_edge : even;
    if (grid.empty() || point > grid.back()) {
      grid.push_back(point);
    }
  }
  return grid;
}

}  // namespace moevar::placement
