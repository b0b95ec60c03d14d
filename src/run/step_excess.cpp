#include "run/step_excess.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace moevar::run {

namespace {

double part_of(const std::vector<double>& rising, double u) {
  const auto index = static_cast<std::size_t>(u * static_cast<double>(rising.size()));
  return rising[std::min(index, rising.size() - 1)];
}

}  // namespace

void StepExcess::add(double tokens, double excess_us) {
  auto& values = seen_[tokens];
  values.insert(std::ranges::upper_bound(values, excess_us), excess_us);
}

double StepExcess::at(double tokens, double u) const {
  if (seen_.empty()) {
    return 0.0;
  }
  const auto above = seen_.lower_bound(tokens);
  if (above == seen_.end()) {
    return part_of(seen_.rbegin()->second, u);
  }
  if (above == seen_.begin() || above->first == tokens) {
    return part_of(above->second, u);
  }
  const auto below = std::prev(above);
  const double part = (tokens - below->first) / (above->first - below->first);
  return std::lerp(part_of(below->second, u), part_of(above->second, u), part);
}

}  // namespace moevar::run
