#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/random.hpp"
#include "base/tensor.hpp"
#include "workload/routing.hpp"

namespace moevar::workload {

/// Throws InputError unless the shape holds at least one layer and 1 <= top_k <= experts. `what`
/// opens the message: who asked.
void check_shape(const RoutingShape& shape, const std::string& what);

/// Throw InputError unless sample() or token_experts() of these arguments is possible: step >= 0,
/// tokens in [1, 2^32 - 1], room for layers × experts counts, an existing layer.
void check_sample(const RoutingShape& shape, std::int64_t step, std::int64_t tokens,
                  std::size_t counts);
void check_token_request(const RoutingShape& shape, std::int64_t step, int layer,
                         std::int64_t tokens);

/// The probability that a token picks each expert, from its weight: top_k × w / Σw, where what
/// exceeds 1 is cut to 1 and the rest scaled up to keep the sum at top_k. Weights are >= 0, at
/// least top_k of them > 0. `weights` and `pi` may be the same memory.
void inclusion_probabilities(std::span<const double> weights, int top_k, std::span<double> pi);

/// Smallest x with P(X <= x) >= u for X ~ Binomial(n, p) where n p (1-p) < 10, by summing the
/// probabilities; above, its Cornish-Fisher expansion to second order, rounded, with a spread that
/// makes the variance exactly n p (1-p). For p > 1/2 it counts failures, so x then falls with u.
std::int64_t binomial_quantile(std::int64_t n, double p, double u) noexcept;

/// Loads of one layer: independent Binomial(tokens, pi_e), conditioned on their sum
/// tokens × top_k (Hájek's conditional Poisson design, with tokens trials per expert). Means are
/// tokens × pi_e, variances v_e (1 - v_e / Σv) with v_e = tokens pi_e (1 - pi_e). pi sums to top_k;
/// no count exceeds tokens. `work` is [experts], for the function's own use.
void sample_counts(std::span<const double> pi, int top_k, std::int64_t tokens, RandomKey key,
                   std::span<double> work, std::span<std::uint32_t> counts) noexcept;

/// Writes a uniformly random permutation of 0 ... order.size()-1 (Fisher-Yates).
void random_order(RandomKey key, std::span<std::uint32_t> order) noexcept;

/// Deals experts to tokens in random order, [tokens][top_k], so that `counts` is their histogram
/// and no token holds an expert twice. Requires counts <= tokens, sum tokens × top_k.
Matrix<std::int32_t> deal_experts(std::span<const std::uint32_t> counts, int top_k,
                                  std::int64_t tokens, RandomKey key);

/// Routing that draws counts from a popularity of the experts.
class SampledRouting : public Routing {
 public:
  SampledRouting(const RoutingShape& shape, std::uint64_t seed);

  [[nodiscard]] RoutingShape shape() const final { return shape_; }
  void sample(std::int64_t step, std::int64_t tokens, std::span<std::uint32_t> counts) const final;
  [[nodiscard]] Matrix<std::int32_t> token_experts(std::int64_t step, int layer,
                                                   std::int64_t tokens) const final;

 protected:
  /// Working memory of one call, so that calls may run on many threads at once.
  struct Scratch {
    explicit Scratch(std::size_t experts) : pi(experts), work(experts), order(experts) {}
    std::vector<double> pi;
    std::vector<double> work;
    std::vector<std::uint32_t> order;
  };

  /// Inclusion probabilities of one layer, [experts]: stored ones, or scratch.pi.
  virtual std::span<const double> popularity(std::int64_t step, std::size_t layer,
                                             Scratch& scratch) const = 0;

 private:
  RoutingShape shape_;
  RandomKey load_key_;
  RandomKey token_key_;
};

}  // namespace moevar::workload
