#pragma once

#include <optional>

namespace moevar::conditions {

/// What a device's power limit may be, W.
struct CapLimits {
  double min_w = 0.0;
  double default_w = 0.0;
  double max_w = 0.0;
};

/// The limit that a request means: itself, or the default where nothing is asked for.
/// Throws InputError that names the range where the request lies outside [min, max]: a cap is
/// refused, never clamped.
double requested_limit_w(const CapLimits& limits, std::optional<double> request_w);

}  // namespace moevar::conditions
