#include "stats/autocorrelation.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

namespace moevar::stats {

double effective_sample_size(std::span<const double> series) {
  const std::size_t n = series.size();
  const auto size = static_cast<double>(n);
  if (n < 2) {
    return size;
  }
  const double mean = std::accumulate(series.begin(), series.end(), 0.0) / size;
  std::vector<double> centred(series.begin(), series.end());
  for (double& value : centred) {
    value -= mean;
  }
  const auto covariance = [&](std::size_t lag) {
    return std::inner_product(centred.begin() + static_cast<std::ptrdiff_t>(lag), centred.end(),
                              centred.begin(), 0.0) /
           size;
  };
  const double variance = covariance(0);
  if (!(variance > 0.0)) {
    return size;
  }
  double sum = 0.0;  // of pairs, the first of which holds ρ(0) = 1
  double pair_before = 2.0;
  for (std::size_t lag = 0; lag + 1 < n; lag += 2) {
    const double pair = std::min(pair_before, (covariance(lag) + covariance(lag + 1)) / variance);
    if (!(pair > 0.0)) {
      break;
    }
    sum += pair;
    pair_before = pair;
  }
  return std::max(1.0, size / std::max(1.0, 2.0 * sum - 1.0));
}

}  // namespace moevar::stats
