#pragma once

#include <cstddef>
#include <memory>

#include "base/bfloat16.hpp"
#include "gating/gating.hpp"
#include "system/cuda.hpp"

/// The router's matrix product on a GPU, through cuBLASLt. Part of builds with CUDA.
namespace moevar::gating {

/// scores_cpu for bf16 tokens and router, on the GPU that was current when it was made.
class Router {
 public:
  /// The library's workspace, and a plan for `most_tokens` tokens. Throws InputError for a shape
  /// that is none, EnvironmentError without cuBLASLt or memory.
  Router(const Shape& shape, std::size_t most_tokens);
  ~Router();
  Router(Router&& other) noexcept;
  Router& operator=(Router&& other) noexcept;
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  /// Queues scores = x router^T, summed in float: `x` is [tokens, hidden], `router` [experts,
  /// hidden], `scores` [tokens, experts], each aligned to 16 bytes; FLOPs: flops(). Capturable. A
  /// number of tokens that is new is planned first, on the host alone, in some 100 µs. Calls follow
  /// each other: they share the workspace. Throws InputError where `tokens` is over most_tokens.
  void scores(std::size_t tokens, const BFloat16* x, const BFloat16* router, float* scores,
              const cuda::Stream& stream);

 private:
  struct Product;
  std::unique_ptr<Product> product_;
};

}  // namespace moevar::gating
