#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "base/error.hpp"
#include "workload/sampler.hpp"

namespace moevar::workload {

namespace {

/// Relative standard deviation of the Zipf exponent from layer to layer, as in expert counts that
/// were published for DeepSeek-V3.
constexpr double kExponentSpread = 0.22;

/// Keeps rank^-exponent far above the smallest double. The hottest top_k experts hold all of the
/// tokens but a few per cent long before.
constexpr double kLargestExponent = 32.0;

// Temporal experts are active in about 17 % of the steps, with about 3 times the tokens (GEM, arXiv
// 2605.19945). Outside they keep what leaves their long-run weight unchanged.
constexpr double kActiveShare = 0.17;
constexpr double kActiveFactor = 3.0;
constexpr double kIdleFactor = (1.0 - kActiveShare * kActiveFactor) / (1.0 - kActiveShare);

// Their groups and the steps that a burst lasts: no source gives either.
constexpr std::size_t kGroupSize = 8;
constexpr std::int64_t kWindowSteps = 4;

constexpr std::int32_t kConsistent = -1;

void check_range(const char* name, double value, double most) {
  if (!std::isfinite(value) || value < 0.0 || value > most) {
    throw InputError(
        std::isinf(most)
            ? fmt::format("synthetic routing: {} is {}; expected 0 or more", name, value)
            : fmt::format("synthetic routing: {} is {}; expected 0 to {}", name, value, most));
  }
}

/// Zipf weights by rank, falling. Of a layer of `like` experts they are rank^-exponent; one of
/// another size takes the mean over the ranks that its own rank covers there.
void zipf_weights(double exponent, std::size_t like, std::span<double> weights) {
  const std::size_t experts = weights.size();
  if (like == experts) {
    for (std::size_t rank = 0; rank < experts; ++rank) {
      weights[rank] = std::pow(static_cast<double>(rank + 1), -exponent);
    }
    return;
  }
  std::vector<double> of_rank(like);
  zipf_weights(exponent, like, of_rank);
  const double covered = static_cast<double>(like) / static_cast<double>(experts);
  for (std::size_t rank = 0; rank < experts; ++rank) {
    // summed anew for each: differences of running sums would cancel to nothing
    const double begin = static_cast<double>(rank) * covered;
    const double end = begin + covered;
    double sum = 0.0;
    for (auto k = static_cast<std::size_t>(begin); k < like && static_cast<double>(k) < end; ++k) {
      const auto from = static_cast<double>(k);
      sum += of_rank[k] * (std::min(end, from + 1.0) - std::max(begin, from));
    }
    weights[rank] = sum / covered;
  }
}

class SyntheticRouting final : public SampledRouting {
 public:
  SyntheticRouting(const RoutingShape& shape, const SyntheticSpec& spec, std::uint64_t seed)
      : SampledRouting(shape, seed),
        top_k_(shape.top_k),
        drift_(spec.drift),
        order_key_(random_stream(seed, Stream::expert_order)),
        window_key_(random_stream(seed, Stream::burst)[1]),
        rank_weight_(
            {static_cast<std::size_t>(shape.layers), static_cast<std::size_t>(shape.experts)}),
        weight_(rank_weight_.shape()),
        group_(rank_weight_.shape(), kConsistent) {
    const auto temporal =
        static_cast<std::size_t>(std::lround(spec.burst * static_cast<double>(shape.experts)));
    if (temporal > 0) {
      groups_ = std::max<std::size_t>(1, (temporal + kGroupSize / 2) / kGroupSize);
    }
    const RandomKey skew_key = random_stream(seed, Stream::skew);
    const RandomKey member_key = random_stream(seed, Stream::burst)[0];
    std::vector<std::uint32_t> order(rank_weight_.extent(1));
    for (std::size_t layer = 0; layer < rank_weight_.extent(0); ++layer) {
      const double exponent = std::min(
          kLargestExponent, spec.skew * std::exp(kExponentSpread * skew_key[layer].normal()));
      zipf_weights(
          exponent,
          spec.like_experts > 0 ? static_cast<std::size_t>(spec.like_experts) : order.size(),
          rank_weight_.row(layer));
      random_order(order_key_[layer][0], order);
      for (std::size_t e = 0; e < order.size(); ++e) {
        weight_(layer, e) = rank_weight_(layer, order[e]);
      }
      if (is_static()) {
        inclusion_probabilities(weight_.row(layer), top_k_, weight_.row(layer));
      }
      random_order(member_key[layer], order);
      for (std::size_t i = 0; i < temporal; ++i) {
        group_(layer, order[i]) = static_cast<std::int32_t>(i % groups_);
      }
    }
  }

 private:
  [[nodiscard]] bool is_static() const { return drift_ == 0.0 && groups_ == 0; }

  std::span<const double> popularity(std::int64_t step, std::size_t layer,
                                     Scratch& scratch) const override {
    if (is_static()) {
      return weight_.row(layer);
    }
    if (drift_ == 0.0) {
      std::ranges::copy(weight_.row(layer), scratch.pi.begin());
    } else {
      drifted_weights(step, layer, scratch);
    }
    if (groups_ > 0) {
      apply_bursts(step, layer, scratch.pi);
    }
    inclusion_probabilities(scratch.pi, top_k_, scratch.pi);
    return scratch.pi;
  }

  /// The popularity moves from one random order of the experts to the next, in 1 / drift steps.
  void drifted_weights(std::int64_t step, std::size_t layer, Scratch& scratch) const {
    const double orders = static_cast<double>(step) * drift_;
    const double whole = std::floor(orders);
    const double part = orders - whole;
    const auto epoch = static_cast<std::uint64_t>(whole);
    const auto by_rank = rank_weight_.row(layer);
    random_order(order_key_[layer][epoch], scratch.order);
    for (std::size_t e = 0; e < scratch.pi.size(); ++e) {
      scratch.pi[e] = (1.0 - part) * by_rank[scratch.order[e]];
    }
    if (part > 0.0) {
      random_order(order_key_[layer][epoch + 1], scratch.order);
      for (std::size_t e = 0; e < scratch.pi.size(); ++e) {
        scratch.pi[e] += part * by_rank[scratch.order[e]];
      }
    }
  }

  void apply_bursts(std::int64_t step, std::size_t layer, std::span<double> weights) const {
    const auto window = static_cast<std::uint64_t>(step / kWindowSteps);
    const RandomKey key = window_key_[layer][window];
    const auto group = group_.row(layer);
    for (std::size_t e = 0; e < weights.size(); ++e) {
      if (group[e] != kConsistent) {
        const bool active = key[static_cast<std::uint64_t>(group[e])].uniform() < kActiveShare;
        weights[e] *= active ? kActiveFactor : kIdleFactor;
      }
    }
  }

  int top_k_;
  double drift_;
  RandomKey order_key_;
  RandomKey window_key_;
  std::size_t groups_ = 0;      ///< of temporal experts, in each layer
  Matrix<double> rank_weight_;  ///< [layers][ranks], falling
  Matrix<double> weight_;       ///< [layers][experts]; where nothing moves, the probabilities
  Matrix<std::int32_t> group_;  ///< [layers][experts]
};

}  // namespace

std::unique_ptr<Routing> make_synthetic(const RoutingShape& shape, const SyntheticSpec& spec,
                                        std::uint64_t seed) {
  check_shape(shape, "synthetic routing");
  check_range("skew", spec.skew, std::numeric_limits<double>::infinity());
  check_range("burst", spec.burst, 1.0);
  check_range("drift", spec.drift, 1.0);
  return std::make_unique<SyntheticRouting>(shape, spec, seed);
}

}  // namespace moevar::workload
