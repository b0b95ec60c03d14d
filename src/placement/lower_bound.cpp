#include <algorithm>
#include <numeric>

#include "placement/placement.hpp"

namespace moevar::placement {

namespace {

/// The earliest time by which all devices together have done `tokens`, split as finely as one
/// likes.
double fractional_finish_us(double tokens, const SpeedModels& speeds) {
  const auto done_by = [&](double time_us) {
    double sum = 0.0;
    for (const auto& curve : speeds) {
      sum += curve.tokens_within(time_us);
    }
    return sum;
  };
  double low = 0.0;
  double high = 0.0;
  for (const auto& curve : speeds) {
    high = std::max(high, curve.time_us(tokens));
  }
  for (int i = 0; i < 100 && high - low > 1e-12 * high; ++i) {
    const double middle = 0.5 * (low + high);
    (done_by(middle) >= tokens ? high : low) = middle;
  }
  return low;
}

}  // namespace

double lower_bound_us(std::span<const double> loads, const SpeedModels& speeds,
                      int /*slots_per_device*/) {
  const double tokens = std::accumulate(loads.begin(), loads.end(), 0.0);
  const double heaviest = loads.empty() ? 0.0 : *std::ranges::max_element(loads);
  double fastest = speeds.empty() ? 0.0 : speeds.front().time_us(heaviest);
  for (const auto& curve : speeds) {
    fastest = std::min(fastest, curve.time_us(heaviest));
  }
  return std::max(fractional_finish_us(tokens, speeds), fastest);
}

}  // namespace moevar::placement
