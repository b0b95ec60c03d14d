#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "base/random.hpp"
#include "expert_ffn/expert_ffn.hpp"

/// What weights and activations are made of, the same to the bit on a host and on a GPU: uniform
/// values on (-edge, edge), each a function of its key and its index.
namespace moevar::fleet {

enum class WeightMatrix : std::uint8_t { w1 = 0, w3 = 1, w2 = 2, router = 3 };
/// Of an expert, in the order in which they lie in memory.
inline constexpr std::array kExpertMatrices{WeightMatrix::w1, WeightMatrix::w3, WeightMatrix::w2};

constexpr RandomKey matrix_key(std::uint64_t seed, int layer, std::int32_t expert,
                               WeightMatrix matrix) noexcept {
  return random_stream(seed, Stream::weights)[static_cast<std::uint64_t>(
      layer)][static_cast<std::uint64_t>(expert)][static_cast<std::uint64_t>(matrix)];
}

/// Where uniform values of that variance end.
inline double edge_of(double variance) noexcept { return std::sqrt(3.0 * variance); }

/// 1 / fan-in.
constexpr double variance_of(const expert_ffn::Shape& shape, WeightMatrix matrix) noexcept {
  const std::size_t fan_in = matrix == WeightMatrix::w2 ? shape.intermediate : shape.hidden;
  return 1.0 / static_cast<double>(fan_in);
}

constexpr float uniform_value(RandomKey key, std::uint64_t index, double edge) noexcept {
  return static_cast<float>((2.0 * key[index].uniform() - 1.0) * edge);
}

}  // namespace moevar::fleet
