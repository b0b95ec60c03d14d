#include "run/cuda_layer.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "base/random.hpp"
#include "exchange/cuda_copy_engine.hpp"
#include "exchange/staged_exchange.hpp"
#include "gpu_test.hpp"
#include "run/dense_reference.hpp"
#include "system/mpi.hpp"

/// A layer's tokens in one batch and in two: on a GPU, and on the host that stands for one, where
/// what nothing orders is found too. Ranks share the GPU.
namespace moevar::run {
namespace {

constexpr std::uint64_t kSeed = 11;
constexpr int kLayers = 3;
constexpr double kLargestError = 2e-2;  // bf16, as in a study

study::ModelShape shape() {
  study::ModelShape model;
  model.hidden = 64;
  model.intermediate = 32;
  model.experts = 8;
  model.top_k = 2;
  model.layers = kLayers;
  return model;
}

class CudaLayerTest : public GpuTest {
 protected:
  void set_up() override { cuda::use(gpu::visible().front().ordinal); }

  [[nodiscard]] std::size_t devices() const { return static_cast<std::size_t>(world_.size()); }

  /// Experts of all devices' tokens, [devices × tokens][top_k], most of them the first few, so that
  /// some experts have no rows.
  [[nodiscard]] std::vector<std::int32_t> experts_of(int layer, std::size_t tokens) const {
    std::vector<std::int32_t> experts;
    for (std::size_t token = 0; token < devices() * tokens; ++token) {
      const auto key = RandomKey(kSeed)[static_cast<std::uint64_t>(layer)][token];
      const auto first = static_cast<std::int32_t>(key[0].below(5));
      experts.push_back(first);
      experts.push_back(first + 1 + static_cast<std::int32_t>(key[1].below(2)));
    }
    return experts;
  }

  [[nodiscard]] std::vector<std::vector<LaneRoute>> routes(std::size_t tokens,
                                                           std::size_t batches) const {
    const int slots = shape().experts / world_.size();
    std::vector<std::vector<LaneRoute>> routes;
    for (const auto& [first, count] : batches_of(tokens, batches)) {
      auto& batch = routes.emplace_back();
      for (int layer = 0; layer < kLayers; ++layer) {
        // expert e is in slot e
        const auto part = part_of_each(experts_of(layer, tokens), 2 * tokens, 2 * first, 2 * count);
        batch.push_back(lane_route(part, part, {world_.size(), slots, 2 * count}, world_.rank()));
      }
    }
    return routes;
  }

  /// The outputs of every layer, one run of layers behind the other.
  std::vector<std::vector<float>> outputs(std::size_t tokens, std::size_t batches) {
    const int slots = shape().experts / world_.size();
    const cuda::Stream stream;
    const auto exchange_stream = cuda::Stream::urgent();
    fleet::CudaDevice device(
        {64, 32}, {.seed = kSeed, .layers = kLayers, .slots = slots, .most_rows = 16}, stream);
    std::vector<std::int32_t> mine(static_cast<std::size_t>(slots));
    std::iota(mine.begin(), mine.end(), world_.rank() * slots);
    for (int layer = 0; layer < kLayers; ++layer) {
      device.load(layer, mine);
    }
    device.tune(tokens);
    CudaLayer layers(shape(),
                     {.seed = kSeed,
                      .device = world_.rank(),
                      .devices = world_.size(),
                      .layers = kLayers,
                      .tokens = static_cast<int>(tokens),
                      .slots = slots,
                      .batches = batches,
                      .exchange_stream = &exchange_stream},
                     device);
    BatchExchanges exchanges;
    layers.take(routes(tokens, batches));
    for (std::size_t batch = 0; batch < batches_of(tokens, batches).size(); ++batch) {
      exchanges.push_back(std::make_unique<exchange::StagedExchange>(
          world_, exchange::ExchangeShape{1, slots, 64 * sizeof(BFloat16)},
          std::make_unique<exchange::CudaCopyEngine>(),
          Patience{"this rank", std::chrono::seconds(30)}));
      exchanges.back()->reserve(layers.sent_rows(batch), layers.most_received(batch));
    }
    const auto schedule = layer_schedule(exchanges.size());
    CudaLayer* only = &layers;
    std::vector<std::vector<float>> all;
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int before = 0; before <= layer; ++before) {  // without a wait in between
        queue_layer(schedule, before, std::span(&only, 1), exchanges);
      }
      exchanges.front()->wait(stream);
      all.push_back(layers.outputs());
      EXPECT_TRUE(std::ranges::equal(layers.token_experts(layer), mine_of(layer, tokens)));
    }
    return all;
  }

  [[nodiscard]] std::vector<std::int32_t> mine_of(int layer, std::size_t tokens) const {
    const auto all = experts_of(layer, tokens);
    const auto mine =
        std::span(all).subspan(static_cast<std::size_t>(world_.rank()) * 2 * tokens, 2 * tokens);
    return {mine.begin(), mine.end()};
  }

  mpi::Communicator world_ = mpi::Communicator::world();
};

TEST_F(CudaLayerTest, TwoBatchesGiveWhatOneGives) {
  for (const std::size_t tokens : {1U, 2U, 5U, 33U, 64U}) {
    const auto whole = outputs(tokens, 1);
    const auto halves = outputs(tokens, 2);
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      ASSERT_EQ(whole[layer].size(), tokens * 64);
      const std::vector<double> expected(whole[layer].begin(), whole[layer].end());
      EXPECT_LE(largest_error(halves[layer], expected, 64), kLargestError)
          << tokens << " tokens, layer " << layer;
    }
  }
}

TEST_F(CudaLayerTest, AllTokensOfBothBatchesAreRight) {
  constexpr std::size_t kTokens = 7;
  const auto halves = outputs(kTokens, 2);
  std::vector<std::int64_t> tokens(kTokens);
  std::iota(tokens.begin(), tokens.end(), static_cast<std::int64_t>(kTokens) * world_.rank());
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    const auto experts = mine_of(static_cast<int>(layer), kTokens);
    const auto expected = dense_reference(shape(), kSeed, static_cast<int>(layer), tokens, experts);
    EXPECT_LE(largest_error(halves[layer], expected, 64), kLargestError) << "layer " << layer;
  }
}

}  // namespace
}  // namespace moevar::run
