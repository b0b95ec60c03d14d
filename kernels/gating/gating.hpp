#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// The router of a MoE layer: which experts a token goes to, and with which weights their outputs
/// are summed. All arrays are row-major.
namespace moevar::gating {

struct Shape {
  std::size_t hidden = 0;
  std::size_t experts = 0;
  std::size_t top_k = 0;  ///< 1 <= top_k <= experts
};

/// Floating-point operations of the router's matrix product, 2 for a multiply-add.
constexpr double flops(const Shape& shape, std::size_t tokens) noexcept {
  return 2.0 * static_cast<double>(tokens) * static_cast<double>(shape.hidden) *
         static_cast<double>(shape.experts);
}

/// Bytes that have to cross the memory bus at least once: tokens, router, scores, ids and weights.
constexpr double bytes(const Shape& shape, std::size_t tokens) noexcept {
  const auto t = static_cast<double>(tokens);
  const auto h = static_cast<double>(shape.hidden);
  const auto e = static_cast<double>(shape.experts);
  return 4.0 * (t * h + e * h + t * e) + 8.0 * t * static_cast<double>(shape.top_k);
}

/// scores = x router^T: `x` is [tokens, hidden], `router` [experts, hidden], `scores` [tokens,
/// experts]. One thread, allocates nothing.
void scores_cpu(const Shape& shape, std::span<const float> x, std::span<const float> router,
                std::span<float> scores);

/// The top_k experts of every token, highest score first; of equal scores the lower expert is
/// first. `ids` is [tokens, top_k]. Allocates nothing.
void choose_top_k_cpu(const Shape& shape, std::span<const float> scores,
                      std::span<std::int32_t> ids);

/// Weights of the experts that were chosen, or forced: the softmax over their top_k scores alone,
/// so that a token's weights sum to 1. `ids` and `weights` are [tokens, top_k].
void softmax_cpu(const Shape& shape, std::span<const float> scores,
                 std::span<const std::int32_t> ids, std::span<float> weights);

/// All of it in double precision and plain loops. Where `forced_ids` is not empty, [tokens, top_k],
/// it takes the place of the choice. `ids` and `weights` are [tokens, top_k].
void run_reference(const Shape& shape, std::span<const float> x, std::span<const float> router,
                   std::span<const std::int32_t> forced_ids, std::span<std::int32_t> ids,
                   std::span<double> weights);

}  // namespace moevar::gating
