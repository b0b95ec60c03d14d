#include "conditions/cap.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::conditions {

double requested_limit_w(const CapLimits& limits, std::optional<double> request_w) {
  const double limit = request_w.value_or(limits.default_w);
  if (!(limit >= limits.min_w && limit <= limits.max_w)) {
    throw InputError(fmt::format("{} W is outside what the device accepts, {} to {} W", limit,
                                 limits.min_w, limits.max_w));
  }
  return limit;
}

}  // namespace moevar::conditions
