#include "workload/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::workload {

namespace {

constexpr double kExactBelowVariance = 10.0;

/// Mean variance of a layer's counts above which a surplus is shared out. The rounding then adds at
/// most 1 / (4 × 10) to a count's variance, and below it the surplus is few draws.
constexpr double kSharesAboveVariance = 10.0;

/// What is this close to 1 is 1: rounding must not leave a token the chance of 1e-16 to miss.
constexpr double kCertain = 1.0 - 1e-12;

/// The quantile by the recurrence of the probabilities; p <= 1/2 keeps (1-p)^n above e^-28.
std::int64_t quantile_by_sum(std::int64_t n, double p, double u) noexcept {
  const double odds = p / (1.0 - p);
  const auto trials = static_cast<double>(n);
  double probability = std::exp(trials * std::log1p(-p));
  double x = 0.0;
  double below = probability;
  // the cumulative sum may round to just below the largest u; no quantile lies so far out
  while (below < u && x < trials && (probability > 1e-18 || x < trials * p)) {
    probability *= odds * ((trials - x) / (x + 1.0));
    x += 1.0;
    below += probability;
  }
  return static_cast<std::int64_t>(x);
}

/// Changes every count by its share, in proportion to the variances, of the surplus (> 0: to be
/// taken away): the linear regression of the counts on their sum. One uniform start rounds all
/// shares, without bias. Returns what is left because a count must stay in [0, tokens].
std::int64_t share_out(std::span<const double> pi, std::int64_t tokens, std::int64_t surplus,
                       double total, double start, std::span<std::uint32_t> counts) noexcept {
  const bool take = surplus > 0;
  const double scale = std::abs(static_cast<double>(surplus)) / total;
  double position = start;
  std::int64_t passed = 0;
  std::int64_t done = 0;
  for (std::size_t e = 0; e < pi.size(); ++e) {
    position += pi[e] * (1.0 - pi[e]) * scale;
    const auto reached = static_cast<std::int64_t>(position);
    const std::int64_t room = take ? counts[e] : tokens - counts[e];
    const std::int64_t change = std::min(reached - passed, room);
    passed = reached;
    done += change;
    counts[e] = static_cast<std::uint32_t>(take ? counts[e] - change : counts[e] + change);
  }
  return take ? surplus - done : surplus + done;
}

/// Takes or gives the surplus one by one, to experts drawn in proportion to what they have to take
/// or the room that they have to give: exact in the Poisson limit.
void draw_out(std::span<const double> pi, std::int64_t tokens, std::int64_t surplus, RandomKey key,
              std::span<double> cumulative, std::span<std::uint32_t> counts) noexcept {
  const bool take = surplus > 0;
  const auto limit = static_cast<double>(tokens);
  const auto weight = [&](std::size_t e) {
    const auto count = static_cast<double>(counts[e]);
    return take ? count * (1.0 - pi[e]) : (limit - count) * pi[e];
  };
  bool stale = true;
  for (std::uint64_t draw = 0; surplus != 0; ++draw) {
    if (stale) {
      double sum = 0.0;
      for (std::size_t e = 0; e < pi.size(); ++e) {
        sum += weight(e);
        cumulative[e] = sum;
      }
    }
    const double at = key[draw].uniform() * cumulative.back();
    const auto above = std::ranges::upper_bound(cumulative.first(pi.size() - 1), at);
    const auto e = static_cast<std::size_t>(above - cumulative.begin());
    // a weight has only fallen since the sums were formed: what it lost is a miss
    stale = !(at - (e == 0 ? 0.0 : cumulative[e - 1]) < weight(e));
    if (!stale) {
      counts[e] = take ? counts[e] - 1 : counts[e] + 1;
      surplus += take ? -1 : 1;
    }
  }
}

void check_step(std::int64_t step, std::int64_t tokens) {
  constexpr std::int64_t kMostTokens = std::numeric_limits<std::uint32_t>::max();
  if (step < 0) {
    throw InputError(fmt::format("routing: step is {}; expected 0 or more", step));
  }
  if (tokens < 1 || tokens > kMostTokens) {
    throw InputError(
        fmt::format("routing: {} tokens in a step; expected 1 to {}", tokens, kMostTokens));
  }
}

}  // namespace

void check_shape(const RoutingShape& shape, const std::string& what) {
  if (shape.layers < 1 || shape.experts < 1) {
    throw InputError(fmt::format("{}: {} layers of {} experts; expected at least one of each", what,
                                 shape.layers, shape.experts));
  }
  if (shape.top_k < 1 || shape.top_k > shape.experts) {
    throw InputError(fmt::format("{}: top_k is {}; expected 1 to {}, the number of experts", what,
                                 shape.top_k, shape.experts));
  }
}

void check_sample(const RoutingShape& shape, std::int64_t step, std::int64_t tokens,
                  std::size_t counts) {
  check_step(step, tokens);
  const std::size_t needed =
      static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(shape.experts);
  if (counts != needed) {
    throw InputError(fmt::format("routing: room for {} counts; expected {} layers × {} experts",
                                 counts, shape.layers, shape.experts));
  }
}

void check_token_request(const RoutingShape& shape, std::int64_t step, int layer,
                         std::int64_t tokens) {
  check_step(step, tokens);
  if (layer < 0 || layer >= shape.layers) {
    throw InputError(
        fmt::format("routing: layer is {}; expected 0 to {}", layer, shape.layers - 1));
  }
}

void inclusion_probabilities(std::span<const double> weights, int top_k, std::span<double> pi) {
  double mass = top_k;
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::transform(weights.begin(), weights.end(), pi.begin(),
                 [scale = mass / total](double weight) { return weight * scale; });
  for (bool cut = true; cut;) {
    cut = false;
    mass = top_k;
    total = 0.0;
    for (double& value : pi) {
      cut = cut || (value >= kCertain && value != 1.0);
      if (value >= kCertain) {
        value = 1.0;
        mass -= 1.0;
      } else {
        total += value;
      }
    }
    if (cut && total > 0.0) {
      const double scale = mass / total;
      for (double& value : pi) {
        value *= value == 1.0 ? 1.0 : scale;
      }
    }
  }
}

std::int64_t binomial_quantile(std::int64_t n, double p, double u) noexcept {
  const auto trials = static_cast<double>(n);
  const double variance = trials * p * (1.0 - p);
  if (variance < kExactBelowVariance) {
    return p <= 0.5 ? quantile_by_sum(n, p, u) : n - quantile_by_sum(n, 1.0 - p, u);
  }
  // Cornish and Fisher 1938: z + skewness (z² - 1) / 6 standard deviations. Rounding adds 1/12 to
  // the variance, the second term 2 × ((1-2p)/6)².
  const double skew = 1.0 - 2.0 * p;
  const double sd = std::sqrt(variance - 1.0 / 12.0 - skew * skew / 18.0);
  const double z = normal_quantile(u);
  const double x = trials * p + sd * z + skew * (z * z - 1.0) / 6.0;
  return static_cast<std::int64_t>(std::clamp(x + 0.5, 0.0, trials));
}

void sample_counts(std::span<const double> pi, int top_k, std::int64_t tokens, RandomKey key,
                   std::span<double> work, std::span<std::uint32_t> counts) noexcept {
  std::int64_t surplus = -tokens * top_k;
  double variance = 0.0;  // of one token
  for (std::size_t e = 0; e < pi.size(); ++e) {
    const std::int64_t count = pi[e] <= 0.0   ? 0
                               : pi[e] >= 1.0 ? tokens
                                              : binomial_quantile(tokens, pi[e], key[e].uniform());
    counts[e] = static_cast<std::uint32_t>(count);
    surplus += count;
    variance += pi[e] * (1.0 - pi[e]);
  }
  const double mean_variance =
      static_cast<double>(tokens) * variance / static_cast<double>(pi.size());
  if (surplus != 0 && mean_variance > kSharesAboveVariance) {
    surplus = share_out(pi, tokens, surplus, variance, key[pi.size()].uniform(), counts);
  }
  if (surplus != 0) {
    draw_out(pi, tokens, surplus, key[pi.size() + 1], work, counts);
  }
}

void random_order(RandomKey key, std::span<std::uint32_t> order) noexcept {
  std::iota(order.begin(), order.end(), 0U);
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[key[i].below(i)]);
  }
}

Matrix<std::int32_t> deal_experts(std::span<const std::uint32_t> counts, int top_k,
                                  std::int64_t tokens, RandomKey key) {
  const auto rows = static_cast<std::size_t>(tokens);
  std::vector<std::uint32_t> expert_order(counts.size());
  std::vector<std::uint32_t> token_order(rows);
  random_order(key[0], expert_order);
  random_order(key[1], token_order);

  // An expert's copies go to consecutive tokens, modulo tokens: never twice to one.
  Matrix<std::int32_t> dealt({rows, static_cast<std::size_t>(top_k)});
  std::size_t token = 0;
  std::size_t choice = 0;
  for (const std::uint32_t expert : expert_order) {
    for (std::uint32_t copy = 0; copy < counts[expert]; ++copy) {
      dealt(token_order[token], choice) = static_cast<std::int32_t>(expert);
      if (++token == rows) {
        token = 0;
        ++choice;
      }
    }
  }
  return dealt;
}

SampledRouting::SampledRouting(const RoutingShape& shape, std::uint64_t seed)
    : shape_(shape),
      load_key_(random_stream(seed, Stream::load)),
      token_key_(random_stream(seed, Stream::token)) {}

void SampledRouting::sample(std::int64_t step, std::int64_t tokens,
                            std::span<std::uint32_t> counts) const {
  check_sample(shape_, step, tokens, counts.size());
  const auto experts = static_cast<std::size_t>(shape_.experts);
  const RandomKey step_key = load_key_[static_cast<std::uint64_t>(step)];
  Scratch scratch(experts);
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(shape_.layers); ++layer) {
    sample_counts(popularity(step, layer, scratch), shape_.top_k, tokens, step_key[layer],
                  scratch.work, counts.subspan(layer * experts, experts));
  }
}

Matrix<std::int32_t> SampledRouting::token_experts(std::int64_t step, int layer,
                                                   std::int64_t tokens) const {
  check_token_request(shape_, step, layer, tokens);
  const auto experts = static_cast<std::size_t>(shape_.experts);
  const auto row = static_cast<std::size_t>(layer);
  const auto step_id = static_cast<std::uint64_t>(step);
  Scratch scratch(experts);
  std::vector<std::uint32_t> counts(experts);
  sample_counts(popularity(step, row, scratch), shape_.top_k, tokens, load_key_[step_id][row],
                scratch.work, counts);
  return deal_experts(counts, shape_.top_k, tokens, token_key_[step_id][row]);
}

}  // namespace moevar::workload
