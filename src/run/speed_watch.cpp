#include "run/speed_watch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace moevar::run {

SpeedWatch::SpeedWatch(std::size_t layers)
    : sums_(layers), counts_(layers), first_sums_(layers), first_counts_(layers) {}

void SpeedWatch::step(const std::vector<double>& ratios) {
  if (left_) {
    return;
  }
  for (std::size_t layer = 0; layer < ratios.size(); ++layer) {
    if (ratios[layer] > 0.0) {
      sums_[layer] += ratios[layer];
      ++counts_[layer];
    }
  }
  if (++steps_ % kInterval == 0) {
    end_interval();
    std::ranges::fill(sums_, 0.0);
    std::ranges::fill(counts_, 0);
  }
}

void SpeedWatch::end_interval() {
  ++intervals_;
  double sum = 0.0;
  double squares = 0.0;
  int layers = 0;
  for (std::size_t layer = 0; layer < sums_.size(); ++layer) {
    if (counts_[layer] == 0) {
      continue;
    }
    const double mean = sums_[layer] / counts_[layer];
    if (intervals_ <= kFirst) {
      first_sums_[layer] += mean;
      ++first_counts_[layer];
    } else if (first_counts_[layer] > 0) {
      const double change = mean * first_counts_[layer] / first_sums_[layer];
      sum += change;
      squares += change * change;
      ++layers;
    }
  }
  if (layers == 0) {
    return;
  }
  const double change = sum / layers;
  const double variance =
      layers > 1 ? std::max(squares - layers * change * change, 0.0) / (layers - 1) : 0.0;
  const double error = std::sqrt(variance / layers);
  const bool looks = std::abs(change - 1.0) > std::max(kLeft, kSure * error);
  const int sign = change > 1.0 ? 1 : -1;
  running_ = !looks ? 0 : running_ * sign > 0 ? running_ + sign : sign;
  if (std::abs(running_) >= (layers > 1 ? 2 : 4)) {
    left_ = change;
  }
}

}  // namespace moevar::run
