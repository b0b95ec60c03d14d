#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

/// Pure functions on numbers. "Zero samples" is a state of its own: an empty optional, never NaN.
namespace moevar::stats {

/// A quantile's p as an integer fraction, 0 < numerator <= denominator, so that ranks are computed
/// in integers.
struct Fraction {
  std::int64_t numerator = 1;
  std::int64_t denominator = 2;
};
inline constexpr Fraction kMedian{1, 2};
inline constexpr Fraction kP90{90, 100};
inline constexpr Fraction kP95{95, 100};
inline constexpr Fraction kP99{99, 100};

/// k = ceil(p n), 1-based; n > 0. Throws InputError for p outside (0, 1] or n = 0.
/// Source: nearest rank; numpy calls it `inverted_cdf`.
std::size_t nearest_rank(Fraction p, std::size_t n);

/// Element nearest_rank(p, n) of the sorted values, for each of `ps`, in their order; empty where
/// there are no values. Values need no order; they must not hold NaN.
std::vector<std::int64_t> quantiles(std::vector<std::int64_t> values, std::span<const Fraction> ps);
std::vector<double> quantiles(std::vector<double> values, std::span<const Fraction> ps);

/// Arithmetic mean. Integers are summed exactly.
std::optional<double> mean(std::span<const std::int64_t> values);
std::optional<double> mean(std::span<const double> values);

/// Ranks, 1-based, of the sorted values between which the quantile lies with probability
/// `coverage`.
struct RankInterval {
  std::size_t lower = 0;
  std::size_t upper = 0;
  double coverage = 0.0;
};

/// Interval for quantile p of n independent samples without a distribution assumed, two-sided at
/// 1 − alpha. With B ~ Binomial(n, p), `lower` is the largest i with P(B <= i − 1) <= alpha/2 and
/// `upper` the smallest j with P(B >= j) <= alpha/2; coverage is P(i <= B <= j − 1). Empty where n
/// is too small for either.
std::optional<RankInterval> quantile_interval(Fraction p, std::size_t n, double alpha = 0.05);

}  // namespace moevar::stats
