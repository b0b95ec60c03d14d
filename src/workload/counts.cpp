#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"
#include "workload/load_file.hpp"
#include "workload/sampler.hpp"

namespace moevar::workload {

namespace {

class CountsRouting final : public SampledRouting {
 public:
  /// `pi`: inclusion probabilities [recorded steps][layers][experts].
  CountsRouting(const RoutingShape& shape, std::uint64_t seed, Tensor<double, 3> pi)
      : SampledRouting(shape, seed), pi_(std::move(pi)) {}

 private:
  std::span<const double> popularity(std::int64_t step, std::size_t layer,
                                     Scratch& /*scratch*/) const override {
    return pi_.row(static_cast<std::size_t>(step) % pi_.extent(0), layer);
  }

  Tensor<double, 3> pi_;
};

/// Mean over the steps of one layer's counts, [experts].
std::vector<double> mean_counts(const Tensor<double, 3>& counts, std::size_t layer) {
  std::vector<double> mean(counts.extent(2));
  for (std::size_t step = 0; step < counts.extent(0); ++step) {
    const auto row = counts.row(step, layer);
    std::ranges::transform(mean, row, mean.begin(), [&](double sum, double count) {
      return sum + count / static_cast<double>(counts.extent(0));
    });
  }
  return mean;
}

double sum(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

std::unique_ptr<Routing> make_counts(const std::string& text, const std::string& path,
                                     const RoutingShape& expected, std::uint64_t seed) {
  const RecordedLoads recorded = parse_loads(text, path);
  const Tensor<double, 3>& counts = recorded.counts;
  const std::size_t experts = counts.extent(2);
  if (expected.experts > 0 && static_cast<std::size_t>(expected.experts) != experts) {
    throw InputError(fmt::format("{}: {} experts per layer; expected {}, as the model has", path,
                                 experts, expected.experts));
  }
  const std::size_t layers = layers_to_use(expected, recorded.layers.size(), path);
  const RoutingShape shape{static_cast<int>(layers), static_cast<int>(experts), expected.top_k};
  check_shape(shape, path);

  Tensor<double, 3> pi({counts.extent(0), layers, experts});
  std::vector<std::vector<double>> means;
  for (std::size_t i = 0; i < layers; ++i) {
    means.push_back(mean_counts(counts, i));
  }
  for (std::size_t step = 0; step < pi.extent(0); ++step) {
    for (std::size_t i = 0; i < layers; ++i) {
      const auto row = counts.row(step, i);
      const auto target = pi.row(step, i);
      inclusion_probabilities(sum(row) > 0.0 ? row : means[i], shape.top_k, target);
      if (!(std::abs(sum(target) - shape.top_k) < 1e-6)) {
        throw InputError(fmt::format(
            "{}, layer {}{}: {} experts have tokens; expected at least top_k, {}", path,
            recorded.layers[i], counts.extent(0) > 1 ? fmt::format(", recorded step {}", step) : "",
            std::ranges::count_if(target, [](double value) { return value > 0.0; }), shape.top_k));
      }
    }
  }
  return std::make_unique<CountsRouting>(shape, seed, std::move(pi));
}

}  // namespace moevar::workload
