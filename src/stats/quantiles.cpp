#include "stats/quantiles.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::stats {

namespace {

template <class T>
std::vector<T> quantiles_of(std::vector<T> values, std::span<const Fraction> ps) {
  std::vector<T> found;
  if (values.empty()) {
    return found;
  }
  std::ranges::sort(values);
  found.reserve(ps.size());
  for (const auto& p : ps) {
    found.push_back(values[nearest_rank(p, values.size()) - 1]);
  }
  return found;
}

/// How many outcomes at one end of Binomial(n, p) together have a probability of at most `limit`,
/// and that probability. Log-space recurrence: plain products underflow for large n.
struct Tail {
  std::size_t outcomes = 0;
  double probability = 0.0;
};
Tail lower_tail(double p, std::size_t n, double limit) {
  const double log_odds = std::log(p) - std::log1p(-p);
  const auto count = static_cast<double>(n);
  double log_probability = count * std::log1p(-p);
  Tail tail;
  while (tail.outcomes <= n && tail.probability + std::exp(log_probability) <= limit) {
    tail.probability += std::exp(log_probability);
    const auto k = static_cast<double>(tail.outcomes);
    log_probability += std::log((count - k) / (k + 1.0)) + log_odds;
    ++tail.outcomes;
  }
  return tail;
}

}  // namespace

std::size_t nearest_rank(Fraction p, std::size_t n) {
  if (p.numerator <= 0 || p.denominator < p.numerator || n == 0) {
    throw InputError(fmt::format("quantile {}/{} of {} values: needs 0 < p <= 1 and a value",
                                 p.numerator, p.denominator, n));
  }
  const auto numerator = static_cast<std::size_t>(p.numerator);
  const auto denominator = static_cast<std::size_t>(p.denominator);
  // n split by the denominator, so that the product cannot overflow
  return n / denominator * numerator +
         (n % denominator * numerator + denominator - 1) / denominator;
}

std::vector<std::int64_t> quantiles(std::vector<std::int64_t> values,
                                    std::span<const Fraction> ps) {
  return quantiles_of(std::move(values), ps);
}

std::vector<double> quantiles(std::vector<double> values, std::span<const Fraction> ps) {
  return quantiles_of(std::move(values), ps);
}

std::optional<double> mean(std::span<const std::int64_t> values) {
  if (values.empty()) {
    return std::nullopt;
  }
  return static_cast<double>(std::reduce(values.begin(), values.end(), std::int64_t{0})) /
         static_cast<double>(values.size());
}

std::optional<double> mean(std::span<const double> values) {
  if (values.empty()) {
    return std::nullopt;
  }
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::optional<RankInterval> quantile_interval(Fraction p, std::size_t n, double alpha) {
  if (p.numerator <= 0 || p.denominator <= p.numerator || !(alpha > 0.0 && alpha < 1.0)) {
    throw InputError(
        fmt::format("interval for quantile {}/{} at alpha {}: needs 0 < p < 1 and "
                    "0 < alpha < 1",
                    p.numerator, p.denominator, alpha));
  }
  const double probability = static_cast<double>(p.numerator) / static_cast<double>(p.denominator);
  const auto below = lower_tail(probability, n, alpha / 2.0);
  // P(B >= j) of Binomial(n, p) is P(B <= n − j) of Binomial(n, 1 − p)
  const double complement =
      static_cast<double>(p.denominator - p.numerator) / static_cast<double>(p.denominator);
  const auto above = lower_tail(complement, n, alpha / 2.0);
  if (below.outcomes == 0 || above.outcomes == 0) {
    return std::nullopt;
  }
  return RankInterval{below.outcomes, n + 1 - above.outcomes,
                      1.0 - below.probability - above.probability};
}

}  // namespace moevar::stats
