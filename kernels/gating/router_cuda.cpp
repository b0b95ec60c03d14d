#include "gating/router_cuda.hpp"

#include <map>

#include <fmt/format.h>

#include "base/error.hpp"
#include "system/cublas_lt.hpp"

namespace moevar::gating {

struct Router::Product {
  Shape shape;
  std::size_t most_tokens = 0;
  cublas_lt::Handle library;
  std::map<std::size_t, cublas_lt::Gemm> by_tokens;

  /// The plan for so many tokens, made when they are first seen.
  cublas_lt::Gemm& plan(std::size_t tokens) {
    const auto found = by_tokens.find(tokens);
    if (found != by_tokens.end()) {
      return found->second;
    }
    const cublas_lt::Product product{.rows = tokens,
                                     .columns = shape.experts,
                                     .depth = shape.hidden,
                                     .out = cublas_lt::Type::f32};
    return by_tokens.emplace(tokens, cublas_lt::Gemm(library, product)).first->second;
  }
};

Router::Router(const Shape& shape, std::size_t most_tokens) {
  if (shape.hidden == 0 || shape.experts == 0) {
    throw InputError(fmt::format("router: hidden {} and {} experts; both at least 1 would be right",
                                 shape.hidden, shape.experts));
  }
  product_ = std::make_unique<Product>();
  product_->shape = shape;
  product_->most_tokens = most_tokens;
  if (most_tokens > 0) {
    product_->plan(most_tokens);
  }
}

Router::~Router() = default;
Router::Router(Router&& other) noexcept = default;
Router& Router::operator=(Router&& other) noexcept = default;

void Router::scores(std::size_t tokens, const BFloat16* x, const BFloat16* router, float* scores,
                    const cuda::Stream& stream) {
  if (tokens > product_->most_tokens) {
    throw InputError(
        fmt::format("router: {} tokens, where it is for {}", tokens, product_->most_tokens));
  }
  if (tokens > 0) {
    product_->plan(tokens).run({.a = x, .b = router, .out = scores}, stream);
  }
}

}  // namespace moevar::gating
