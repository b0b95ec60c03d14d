#include "placement/targets.hpp"

#include <algorithm>
#include <numeric>

namespace moevar::placement {

namespace {

/// [devices]: tokens that every device has done by a time, no more than all.
std::vector<double> done_by(const SpeedModels& speeds, double time_us, double tokens) {
  std::vector<double> done;
  for (const auto& curve : speeds) {
    done.push_back(std::min(curve.tokens_within(time_us), tokens));
  }
  return done;
}

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

std::vector<double> speed_targets(const SpeedModels& speeds, double tokens, double n_ref) {
  std::vector<double> speed;
  for (const auto& curve : speeds) {
    const double time = curve.time_us(n_ref);
    if (!(time > 0.0)) {
      speed.assign(speeds.size(), tokens / static_cast<double>(speeds.size()));
      return speed;
    }
    speed.push_back(1.0 / time);
  }
  const double all = sum(speed);
  for (double& target : speed) {
    target *= tokens / all;
  }
  return speed;
}

std::vector<double> finish_targets(const SpeedModels& speeds, double tokens) {
  double early = 0.0;
  double late = 0.0;
  for (const auto& curve : speeds) {
    late = std::max(late, curve.time_us(tokens));
  }
  constexpr int kHalvings = 100;
  constexpr double kClose = 1e-13;
  for (int i = 0; i < kHalvings && late - early > kClose * late; ++i) {
    const double middle = 0.5 * (early + late);
    (sum(done_by(speeds, middle, tokens)) >= tokens ? late : early) = middle;
  }
  auto targets = done_by(speeds, early, tokens);
  const auto at_finish = done_by(speeds, late, tokens);
  double before = sum(targets);
  if (before > tokens) {  // devices that take no time do more than all at once
    std::ranges::fill(targets, 0.0);
    before = 0.0;
  }
  const double after = sum(at_finish);
  const double part = after > before ? (tokens - before) / (after - before) : 0.0;
  for (std::size_t d = 0; d < targets.size(); ++d) {
    targets[d] += part * (at_finish[d] - targets[d]);
  }
  return targets;
}

}  // namespace moevar::placement
