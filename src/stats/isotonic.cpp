#include "stats/isotonic.hpp"

#include <cstddef>

namespace moevar::stats {

std::vector<double> isotonic_fit(std::span<const double> values) {
  struct Pool {
    double mean = 0.0;
    std::size_t count = 0;
  };
  std::vector<Pool> pools;
  pools.reserve(values.size());
  for (const double value : values) {
    Pool last{value, 1};
    while (!pools.empty() && pools.back().mean > last.mean) {
      const Pool& before = pools.back();
      const auto count = static_cast<double>(before.count + last.count);
      last.mean += (before.mean - last.mean) * static_cast<double>(before.count) / count;
      last.count += before.count;
      pools.pop_back();
    }
    pools.push_back(last);
  }
  std::vector<double> fit;
  fit.reserve(values.size());
  for (const Pool& pool : pools) {
    fit.insert(fit.end(), pool.count, pool.mean);
  }
  return fit;
}

}  // namespace moevar::stats
