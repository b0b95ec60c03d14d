#include "gating/gating_cuda.hpp"

#include <limits>
#include <optional>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"
#include "gpu_test.hpp"

namespace moevar::gating {
namespace {

using cuda::DeviceArray;

class GatingCuda : public GpuTest {
 protected:
  void set_up() override { stream_.emplace(); }
  [[nodiscard]] const cuda::Stream& stream() const { return *stream_; }

  template <class T>
  DeviceArray<T> on_device(const std::vector<T>& values) const {
    DeviceArray<T> array(values.size());
    cuda::to_device(std::span<const T>(values), array.data(), stream());
    stream().synchronise();
    return array;
  }
  template <class T>
  std::vector<T> on_host(const DeviceArray<T>& values) const {
    std::vector<T> all(values.size());
    cuda::to_host(values.data(), std::span<T>(all), stream());
    stream().synchronise();
    return all;
  }

 private:
  std::optional<cuda::Stream> stream_;
};

const std::vector<Shape> kShapes = {{1, 1, 1},   {1, 5, 2},    {1, 32, 4},  {1, 33, 8},
                                    {1, 64, 6},  {1, 128, 8},  {1, 160, 6}, {1, 256, 8},
                                    {1, 384, 8}, {1, 511, 31}, {1, 512, 32}};

/// `levels` 0: normal; else so few different scores that many tie.
std::vector<float> random_scores(const Shape& shape, std::size_t tokens, std::uint64_t levels) {
  std::vector<float> all(tokens * shape.experts);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto random = RandomKey(1)[shape.experts][levels][i];
    all[i] = levels == 0 ? static_cast<float>(random.normal())
                         : static_cast<float>(random.below(levels)) - 1.0F;
  }
  return all;
}

void expect_weights(const std::vector<float>& weights, const std::vector<float>& expected) {
  ASSERT_EQ(weights.size(), expected.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    ASSERT_NEAR(weights[i], expected[i], 1e-6F + 1e-5F * expected[i]) << i;  // a NaN fails
  }
}

TEST_F(GatingCuda, ChoosesAndWeighsAsTheCpu) {
  for (const Shape& shape : kShapes) {
    for (const std::size_t tokens : {0U, 1U, 3U, 130U, 4097U}) {
      for (const std::uint64_t levels : {0ULL, 5ULL}) {
        SCOPED_TRACE(testing::Message() << shape.experts << " experts, " << tokens << " tokens");
        const auto scores = random_scores(shape, tokens, levels);
        std::vector<std::int32_t> expected_ids(tokens * shape.top_k);
        std::vector<float> expected(expected_ids.size());
        choose_top_k_cpu(shape, scores, expected_ids);
        softmax_cpu(shape, scores, expected_ids, expected);

        const auto device_scores = on_device(scores);
        const auto ids = on_device(std::vector<std::int32_t>(expected_ids.size(), -1));
        const auto weights =
            on_device(std::vector<float>(expected.size(), std::numeric_limits<float>::quiet_NaN()));
        choose_top_k_cuda(shape, tokens, device_scores.data(), ids.data(), weights.data(),
                          stream());
        EXPECT_EQ(on_host(ids), expected_ids);
        expect_weights(on_host(weights), expected);
      }
    }
  }
}

TEST_F(GatingCuda, WeighsForcedIdsAsTheCpu) {
  for (const Shape& shape : kShapes) {
    for (const std::size_t tokens : {0U, 1U, 515U}) {
      const auto scores = random_scores(shape, tokens, 0);
      std::vector<std::int32_t> ids(tokens * shape.top_k);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        ids[i] = static_cast<std::int32_t>((7 * i + 3) % shape.experts);
      }
      std::vector<float> expected(ids.size());
      softmax_cpu(shape, scores, ids, expected);
      const auto device_scores = on_device(scores);
      const auto device_ids = on_device(ids);
      const auto weights =
          on_device(std::vector<float>(ids.size(), std::numeric_limits<float>::quiet_NaN()));
      softmax_cuda(shape, tokens, device_scores.data(), device_ids.data(), weights.data(),
                   stream());
      expect_weights(on_host(weights), expected);
    }
  }
}

TEST_F(GatingCuda, LargeScoresDoNotOverflow) {
  const auto scores = on_device(std::vector<float>{3e38F, -3e38F, 3e38F});
  const auto ids = on_device(std::vector<std::int32_t>{0, 1});
  const auto weights = on_device(std::vector<float>(2, -1.0F));
  softmax_cuda({1, 3, 2}, 1, scores.data(), ids.data(), weights.data(), stream());
  EXPECT_EQ(on_host(weights), (std::vector<float>{1.0F, 0.0F}));
}

TEST_F(GatingCuda, RefusesShapesItIsNotMadeFor) {
  for (const Shape& shape :
       {Shape{1, 513, 8}, Shape{1, 64, 33}, Shape{1, 4, 5}, Shape{1, 4, 0}, Shape{1, 0, 0}}) {
    EXPECT_THROW(choose_top_k_cuda(shape, 1, nullptr, nullptr, nullptr, stream()), InputError);
    EXPECT_THROW(softmax_cuda(shape, 1, nullptr, nullptr, nullptr, stream()), InputError);
  }
}

}  // namespace
}  // namespace moevar::gating
