#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "gating/gating.hpp"

namespace moevar::gating {

void run_reference(const Shape& shape, std::span<const float> x, std::span<const float> router,
                   std::span<const std::int32_t> forced_ids, std::span<std::int32_t> ids,
                   std::span<double> weights) {
  const std::size_t tokens = x.size() / shape.hidden;
  std::vector<double> scores(shape.experts);
  std::vector<std::int32_t> order(shape.experts);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t e = 0; e < shape.experts; ++e) {
      scores[e] = 0.0;
      for (std::size_t h = 0; h < shape.hidden; ++h) {
        scores[e] += static_cast<double>(x[t * shape.hidden + h]) *
                     static_cast<double>(router[e * shape.hidden + h]);
      }
    }
    const auto score_of = [&](std::int32_t e) { return scores[static_cast<std::size_t>(e)]; };
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater<>{}, score_of);
    double sum = 0.0;
    for (std::size_t k = 0; k < shape.top_k; ++k) {
      const std::size_t place = t * shape.top_k + k;
      ids[place] = forced_ids.empty() ? order[k] : forced_ids[place];
      weights[place] = std::exp(score_of(ids[place]));
      sum += weights[place];
    }
    for (std::size_t k = 0; k < shape.top_k; ++k) {
      weights[t * shape.top_k + k] /= sum;
    }
  }
}

}  // namespace moevar::gating
