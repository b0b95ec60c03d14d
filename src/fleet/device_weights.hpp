#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "expert_ffn/expert_ffn.hpp"
#include "system/cuda.hpp"

/// The numbers of expert_weights.hpp made where a GPU needs them: the same values to the bit,
/// rounded to bfloat16. Pointers are to the current GPU's memory; work is queued on the stream.
/// Part of builds with CUDA.
namespace moevar::fleet {

/// One expert's W1, W3 and W2, one behind the other: 3 × hidden × intermediate values.
void fill_expert_cuda(const expert_ffn::Shape& shape, std::uint64_t seed, int layer,
                      std::int32_t expert, BFloat16* plain, const cuda::Stream& stream);

/// A layer's router, [experts, hidden].
void fill_router_cuda(std::uint64_t seed, int layer, std::size_t experts, std::size_t hidden,
                      BFloat16* router, const cuda::Stream& stream);

/// Activations of consecutive tokens from `first_token` of the fleet on, [tokens, hidden].
void fill_activations_cuda(std::uint64_t seed, std::int64_t first_token, std::size_t tokens,
                           std::size_t hidden, BFloat16* x, const cuda::Stream& stream);

}  // namespace moevar::fleet
