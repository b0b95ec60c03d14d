#include "gating/router_cuda.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"
#include "gpu_test.hpp"
#include "system/cublas_lt.hpp"

namespace moevar::gating {
namespace {

using cuda::DeviceArray;

class RouterCuda : public GpuTest {
 protected:
  void set_up() override {
    if (!cublas_lt::available()) {
      GTEST_SKIP() << cublas_lt::why_unavailable();
    }
  }
};

std::vector<BFloat16> random_matrix(std::uint64_t key, std::size_t count) {
  std::vector<BFloat16> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    all[i] = BFloat16::from(static_cast<float>(RandomKey(key)[i].normal()));
  }
  return all;
}

TEST_F(RouterCuda, ScoresAreTheProductInDouble) {
  const cuda::Stream stream;
  for (const Shape& shape : {Shape{64, 8, 1}, Shape{2048, 128, 8}, Shape{7168, 256, 8}}) {
    const auto router = random_matrix(1 + shape.hidden, shape.experts * shape.hidden);
    const DeviceArray<BFloat16> device_router(router.size());
    cuda::to_device(std::span<const BFloat16>(router), device_router.data(), stream);
    Router product(shape, 130);
    for (const std::size_t tokens : {0U, 1U, 33U, 130U}) {
      SCOPED_TRACE(testing::Message() << shape.hidden << " x " << tokens);
      const auto x = random_matrix(2 + tokens, tokens * shape.hidden);
      const DeviceArray<BFloat16> device_x(x.size());
      cuda::to_device(std::span<const BFloat16>(x), device_x.data(), stream);
      std::vector<float> scores(tokens * shape.experts, std::numeric_limits<float>::quiet_NaN());
      const DeviceArray<float> device_scores(scores.size());
      cuda::to_device(std::span<const float>(scores), device_scores.data(), stream);
      product.scores(tokens, device_x.data(), device_router.data(), device_scores.data(), stream);
      cuda::to_host(device_scores.data(), std::span<float>(scores), stream);
      stream.synchronise();
      for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t e = 0; e < shape.experts; ++e) {
          double sum = 0.0;
          double size = 0.0;
          for (std::size_t h = 0; h < shape.hidden; ++h) {
            const double term = static_cast<double>(x[t * shape.hidden + h].value()) *
                                static_cast<double>(router[e * shape.hidden + h].value());
            sum += term;
            size += std::abs(term);
          }
          // products of bf16 are exact in float; sums in any order lose some 2^-24 each
          ASSERT_NEAR(scores[t * shape.experts + e], sum, 1e-5 * size) << t << " " << e;
        }
      }
    }
    EXPECT_THROW(product.scores(131, nullptr, nullptr, nullptr, stream), InputError);
  }
}

TEST_F(RouterCuda, RefusesWhatIsNoShape) {
  EXPECT_THROW(Router(Shape{0, 4, 1}, 1), InputError);
  EXPECT_THROW(Router(Shape{4, 0, 1}, 1), InputError);
}

}  // namespace
}  // namespace moevar::gating
