#include <string>
#include <type_traits>

#include "base/error.hpp"
#include "gating/gating_cuda.hpp"
#include "gating/gating_device.cuh"
#include "gating/gating_lanes.hpp"

namespace moevar::gating {

namespace {

std::uint32_t checked_tokens(const Shape& shape, std::size_t tokens) {
  if (shape.experts == 0 || shape.experts > kMostExperts || shape.top_k == 0 ||
      shape.top_k > kMostTopK || shape.top_k > shape.experts) {
    throw InputError("gating on a GPU: top_k " + std::to_string(shape.top_k) + " of " +
                     std::to_string(shape.experts) + " experts; 1 to " + std::to_string(kMostTopK) +
                     " of at most " + std::to_string(kMostExperts) + " would be right");
  }
  constexpr std::size_t kMost = (std::size_t{1} << 32U) / kLanes - kThreads;
  if (tokens > kMost) {
    throw InputError("gating on a GPU: " + std::to_string(tokens) + " tokens; at most " +
                     std::to_string(kMost) + " would be right");
  }
  return static_cast<std::uint32_t>(tokens);
}

unsigned blocks_for(std::uint32_t tokens) {
  constexpr unsigned kTokens = kThreads / kLanes;
  return (tokens + kTokens - 1) / kTokens;
}

/// Calls launch(integral_constant<uint32_t, scores a lane holds>).
template <class Launch>
void with_held(std::size_t experts, const Launch& launch) {
  switch (held_for(experts)) {
    case 1:
      return launch(std::integral_constant<std::uint32_t, 1>{});
    case 2:
      return launch(std::integral_constant<std::uint32_t, 2>{});
    case 4:
      return launch(std::integral_constant<std::uint32_t, 4>{});
    case 8:
      return launch(std::integral_constant<std::uint32_t, 8>{});
    default:
      return launch(std::integral_constant<std::uint32_t, kMostExperts / kLanes>{});
  }
}

}  // namespace

void choose_top_k_cuda(const Shape& shape, std::size_t tokens, const float* scores,
                       std::int32_t* ids, float* weights, const cuda::Stream& stream) {
  const std::uint32_t count = checked_tokens(shape, tokens);
  if (count == 0) {
    return;
  }
  with_held(shape.experts, [&](auto held) {
    choose_top_k<decltype(held)::value><<<blocks_for(count), kThreads, 0, stream.raw()>>>(
        count, static_cast<std::uint32_t>(shape.experts), static_cast<std::uint32_t>(shape.top_k),
        scores, ids, weights);
  });
  MOEVAR_CUDA(cudaGetLastError());
}

void softmax_cuda(const Shape& shape, std::size_t tokens, const float* scores,
                  const std::int32_t* ids, float* weights, const cuda::Stream& stream) {
  const std::uint32_t count = checked_tokens(shape, tokens);
  if (count == 0) {
    return;
  }
  weigh<<<blocks_for(count), kThreads, 0, stream.raw()>>>(
      count, static_cast<std::uint32_t>(shape.experts), static_cast<std::uint32_t>(shape.top_k),
      scores, ids, weights);
  MOEVAR_CUDA(cudaGetLastError());
}

}  // namespace moevar::gating
