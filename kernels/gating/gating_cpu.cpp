#include <algorithm>
#include <cmath>

#include <cblas.h>

#include "gating/gating.hpp"

namespace moevar::gating {

void scores_cpu(const Shape& shape, std::span<const float> x, std::span<const float> router,
                std::span<float> scores) {
  const std::size_t tokens = x.size() / shape.hidden;
  if (tokens == 0) {
    return;
  }
  openblas_set_num_threads(1);  // one device is one core
  const auto k = static_cast<blasint>(shape.hidden);
  const auto n = static_cast<blasint>(shape.experts);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<blasint>(tokens), n, k, 1.0F,
              x.data(), k, router.data(), k, 0.0F, scores.data(), n);
}

void choose_top_k_cpu(const Shape& shape, std::span<const float> scores,
                      std::span<std::int32_t> ids) {
  const std::size_t tokens = scores.size() / shape.experts;
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto row = scores.subspan(t * shape.experts, shape.experts);
    const auto best = ids.subspan(t * shape.top_k, shape.top_k);
    std::size_t held = 0;
    for (std::size_t e = 0; e < shape.experts; ++e) {
      // Insertion into the short sorted list; a later expert must be strictly better to go before.
      std::size_t place = held;
      while (place > 0 && row[e] > row[static_cast<std::size_t>(best[place - 1])]) {
        --place;
      }
      if (place == shape.top_k) {
        continue;
      }
      held = std::min(held + 1, shape.top_k);
      for (std::size_t i = held - 1; i > place; --i) {
        best[i] = best[i - 1];
      }
      best[place] = static_cast<std::int32_t>(e);
    }
  }
}

void softmax_cpu(const Shape& shape, std::span<const float> scores,
                 std::span<const std::int32_t> ids, std::span<float> weights) {
  const std::size_t tokens = ids.size() / shape.top_k;
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto row = scores.subspan(t * shape.experts, shape.experts);
    const auto chosen = ids.subspan(t * shape.top_k, shape.top_k);
    const auto out = weights.subspan(t * shape.top_k, shape.top_k);
    float highest = row[static_cast<std::size_t>(chosen[0])];
    for (const auto e : chosen) {
      highest = std::max(highest, row[static_cast<std::size_t>(e)]);
    }
    float sum = 0.0F;
    for (std::size_t k = 0; k < shape.top_k; ++k) {
      out[k] = std::exp(row[static_cast<std::size_t>(chosen[k])] - highest);
      sum += out[k];
    }
    for (float& weight : out) {
      weight /= sum;
    }
  }
}

}  // namespace moevar::gating
