#include "fleet/expert_weights.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "fleet/uniform_values.hpp"

namespace moevar::fleet {

namespace {

/// For the indices from `first` on.
void fill_uniform(RandomKey key, std::uint64_t first, double variance, std::span<float> values) {
  const double edge = edge_of(variance);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = uniform_value(key, first + i, edge);
  }
}

/// Each word is mixed with its place before they are summed: another value anywhere, or two values
/// that changed places, give another sum.
std::uint64_t checksum_part(std::uint64_t first, std::span<const float> values) noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += mix(((first + i) << 32U) | std::bit_cast<std::uint32_t>(values[i]));
  }
  return sum;
}

}  // namespace

ExpertWeights::ExpertWeights(const expert_ffn::Shape& shape)
    : shape_(shape), values_(3 * shape.hidden * shape.intermediate) {}

void ExpertWeights::fill(std::uint64_t seed, int layer, std::int32_t expert) {
  const std::size_t matrix_size = shape_.hidden * shape_.intermediate;
  std::span<float> rest(values_);
  for (const auto matrix : kExpertMatrices) {
    fill_uniform(matrix_key(seed, layer, expert, matrix), 0, variance_of(shape_, matrix),
                 rest.first(matrix_size));
    rest = rest.subspan(matrix_size);
  }
}

expert_ffn::Weights ExpertWeights::view() const noexcept {
  const std::size_t matrix_size = shape_.hidden * shape_.intermediate;
  const std::span<const float> all(values_);
  return {all.first(matrix_size), all.subspan(matrix_size, matrix_size), all.last(matrix_size)};
}

std::uint64_t ExpertWeights::checksum() const noexcept { return checksum_part(0, values_); }

std::uint64_t expected_checksum(const expert_ffn::Shape& shape, std::uint64_t seed, int layer,
                                std::int32_t expert) {
  const std::size_t matrix_size = shape.hidden * shape.intermediate;
  std::array<float, 4096> piece{};
  std::uint64_t sum = 0;
  std::uint64_t place = 0;
  for (const auto matrix : kExpertMatrices) {
    const auto key = matrix_key(seed, layer, expert, matrix);
    for (std::size_t first = 0; first < matrix_size; first += piece.size()) {
      const auto values = std::span(piece).first(std::min(piece.size(), matrix_size - first));
      fill_uniform(key, first, variance_of(shape, matrix), values);
      sum += checksum_part(place + first, values);
    }
    place += matrix_size;
  }
  return sum;
}

void fill_router(std::uint64_t seed, int layer, std::size_t hidden, std::span<float> router) {
  for (std::size_t expert = 0; expert < router.size() / hidden; ++expert) {
    fill_uniform(matrix_key(seed, layer, static_cast<std::int32_t>(expert), WeightMatrix::router),
                 0, 1.0 / static_cast<double>(hidden), router.subspan(expert * hidden, hidden));
  }
}

void fill_activations(std::uint64_t seed, std::int64_t first_token, std::size_t hidden,
                      std::span<float> tokens) {
  const auto stream = random_stream(seed, Stream::activations);
  for (std::size_t t = 0; t < tokens.size() / hidden; ++t) {
    fill_uniform(stream[static_cast<std::uint64_t>(first_token) + t], 0, 1.0,
                 tokens.subspan(t * hidden, hidden));
  }
}

}  // namespace moevar::fleet
