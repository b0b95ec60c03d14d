#pragma once

#include <cstddef>
#include <cstdint>

#include "gating/gating.hpp"
#include "system/cuda.hpp"

/// gating.hpp on a GPU. All pointers are to memory that the current GPU reads; work is queued on
/// the given stream, may be recorded into a graph, and allocates nothing. Part of builds with CUDA.
namespace moevar::gating {

/// What the kernels are made for. More is an InputError.
inline constexpr std::size_t kMostExperts = 512;
inline constexpr std::size_t kMostTopK = 32;

/// choose_top_k_cpu and softmax_cpu in one go: the same ids to the bit, of scores that are no NaN.
/// `scores` is [tokens, experts], `ids` and `weights` [tokens, top_k]. Reads each score once: bytes
/// 4 × tokens × experts + 8 × tokens × top_k. Throws InputError for a shape it is not made for.
void choose_top_k_cuda(const Shape& shape, std::size_t tokens, const float* scores,
                       std::int32_t* ids, float* weights, const cuda::Stream& stream);

/// softmax_cpu: weights of forced ids, [tokens, top_k], each in [0, experts). Throws as above.
void softmax_cuda(const Shape& shape, std::size_t tokens, const float* scores,
                  const std::int32_t* ids, float* weights, const cuda::Stream& stream);

}  // namespace moevar::gating
