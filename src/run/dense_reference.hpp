#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "study/study.hpp"

namespace moevar::run {

/// What one MoE layer must give for some tokens, [tokens][hidden]: weights and activations made
/// anew from the seed, no placement, no exchange, everything in double precision. `tokens` are
/// numbers in the fleet, `experts` [tokens][top_k] where each goes.
std::vector<double> dense_reference(const study::ModelShape& model, std::uint64_t seed, int layer,
                                    std::span<const std::int64_t> tokens,
                                    std::span<const std::int32_t> experts);

/// Largest over tokens of |output − expected| / |expected|, Euclidean norms; both [tokens][hidden].
/// Infinity where an output is not a number.
double largest_error(std::span<const float> outputs, std::span<const double> expected,
                     std::size_t hidden);

}  // namespace moevar::run
