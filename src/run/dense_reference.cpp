#include "run/dense_reference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "expert_ffn/expert_ffn.hpp"
#include "fleet/expert_weights.hpp"
#include "gating/gating.hpp"

namespace moevar::run {

std::vector<double> dense_reference(const study::ModelShape& model, std::uint64_t seed, int layer,
                                    std::span<const std::int64_t> tokens,
                                    std::span<const std::int32_t> experts) {
  const auto hidden = static_cast<std::size_t>(model.hidden);
  const auto top_k = static_cast<std::size_t>(model.top_k);
  const gating::Shape gate{hidden, static_cast<std::size_t>(model.experts), top_k};
  const expert_ffn::Shape shape{hidden, static_cast<std::size_t>(model.intermediate)};

  std::vector<float> x(tokens.size() * hidden);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    fleet::fill_activations(seed, tokens[t], hidden, std::span(x).subspan(t * hidden, hidden));
  }
  std::vector<float> router(gate.experts * hidden);
  fleet::fill_router(seed, layer, hidden, router);
  std::vector<std::int32_t> ids(experts.size());
  std::vector<double> weights(experts.size());
  gating::run_reference(gate, x, router, experts, ids, weights);

  std::map<std::int32_t, std::vector<std::size_t>> rows_of;  // expert → indices into `experts`
  for (std::size_t i = 0; i < experts.size(); ++i) {
    rows_of[experts[i]].push_back(i);
  }
  std::vector<double> sum(x.size(), 0.0);
  fleet::ExpertWeights expert(shape);
  std::vector<double> y(hidden);
  for (const auto& [id, rows] : rows_of) {
    expert.fill(seed, layer, id);
    const expert_ffn::Group one_row{expert.view(), 1};
    for (const std::size_t row : rows) {
      const std::size_t begin = row / top_k * hidden;
      expert_ffn::run_reference(shape, std::span(&one_row, 1),
                                std::span<const float>(x).subspan(begin, hidden), y);
      for (std::size_t h = 0; h < hidden; ++h) {
        sum[begin + h] += weights[row] * y[h];
      }
    }
  }
  return sum;
}

double largest_error(std::span<const float> outputs, std::span<const double> expected,
                     std::size_t hidden) {
  double worst = 0.0;
  for (std::size_t begin = 0; begin < outputs.size(); begin += hidden) {
    double difference = 0.0;
    double norm = 0.0;
    for (std::size_t i = begin; i < begin + hidden; ++i) {
      const double d = static_cast<double>(outputs[i]) - expected[i];
      difference += d * d;
      norm += expected[i] * expected[i];
    }
    const double error = std::sqrt(difference / norm);
    if (!(error <= std::numeric_limits<double>::max())) {
      return std::numeric_limits<double>::infinity();
    }
    worst = std::max(worst, error);
  }
  return worst;
}

}  // namespace moevar::run
