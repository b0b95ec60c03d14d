#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/units.hpp"
#include "expert_ffn/expert_ffn.hpp"

/// The numbers that a layer computes with. Every value is a function of the seed and of what it is
/// for, so any rank can make, or check, any of them.
namespace moevar::fleet {

/// One expert's W1, W3 and W2 in one piece of memory, so that it moves as one message.
class ExpertWeights {
 public:
  explicit ExpertWeights(const expert_ffn::Shape& shape);

  /// Uniform values of variance 1 / fan-in, keyed by (seed, layer, expert, matrix, index).
  void fill(std::uint64_t seed, int layer, std::int32_t expert);

  [[nodiscard]] expert_ffn::Weights view() const noexcept;
  [[nodiscard]] std::span<float> values() noexcept { return values_; }
  [[nodiscard]] std::span<const float> values() const noexcept { return values_; }
  [[nodiscard]] std::uint64_t checksum() const noexcept;

 private:
  expert_ffn::Shape shape_;
  std::vector<float> values_;  ///< W1, W3, W2
};

/// Bytes of one expert's weights.
constexpr std::size_t expert_bytes(const expert_ffn::Shape& shape) noexcept {
  return 3 * shape.hidden * shape.intermediate * sizeof(float);
}

/// What checksum() of untouched weights must give, without holding them in memory.
std::uint64_t expected_checksum(const expert_ffn::Shape& shape, std::uint64_t seed, int layer,
                                std::int32_t expert);

/// A layer's router, [experts, hidden]: variance 1 / hidden, keyed by (seed, layer, expert, index).
void fill_router(std::uint64_t seed, int layer, std::size_t hidden, std::span<float> router);

/// Activations of consecutive tokens from `first_token` of the fleet on, [tokens, hidden]: uniform
/// of variance 1, keyed by (seed, token, index). The same in every layer and step.
void fill_activations(std::uint64_t seed, std::int64_t first_token, std::size_t hidden,
                      std::span<float> tokens);

}  // namespace moevar::fleet
