#include "gating/gating_cuda.hpp"
#include "gpu_benchmark.hpp"

/// Choice and weights of one GPU's tokens. Arguments: experts, top_k, tokens, whether the L2 is
/// cold. The ceiling is a device-to-device copy that moves as many bytes in the same state of the
/// L2: `of_copy` is the copy's time over the kernel's.
namespace {

namespace kernel = moevar::gating;
using moevar::cuda::DeviceArray;

std::size_t argument(const benchmark::State& state, std::size_t index) {
  return static_cast<std::size_t>(state.range(index));
}

void choose(benchmark::State& state, bool forced) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  const kernel::Shape shape{1, argument(state, 0), argument(state, 1)};
  const std::size_t tokens = argument(state, 2);
  moevar::gpu::Timer timer(argument(state, 3) == 1);
  std::vector<float> scores(tokens * shape.experts);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = static_cast<float>(i * 2'654'435'761U % 1'000'003);
  }
  const DeviceArray<float> device_scores(scores.size());
  moevar::cuda::to_device(std::span<const float>(scores), device_scores.data(), timer.stream());
  timer.stream().synchronise();
  const DeviceArray<std::int32_t> ids(tokens * shape.top_k);
  const DeviceArray<float> weights(ids.size());
  kernel::choose_top_k_cuda(shape, tokens, device_scores.data(), ids.data(), weights.data(),
                            timer.stream());
  const std::size_t bytes = (forced ? ids.bytes() : device_scores.bytes()) + 2 * ids.bytes();
  const DeviceArray<std::byte> copy(bytes);
  double copy_seconds = 0.0;
  double seconds = 0.0;
  while (state.KeepRunning()) {
    copy_seconds += timer.seconds([&] {
      MOEVAR_CUDA(cudaMemcpyAsync(copy.data(), copy.data() + bytes / 2, bytes / 2,
                                  cudaMemcpyDeviceToDevice, timer.stream().raw()));
    });
    const double once = timer.seconds([&] {
      if (forced) {
        kernel::softmax_cuda(shape, tokens, device_scores.data(), ids.data(), weights.data(),
                             timer.stream());
      } else {
        kernel::choose_top_k_cuda(shape, tokens, device_scores.data(), ids.data(), weights.data(),
                                  timer.stream());
      }
    });
    seconds += once;
    state.SetIterationTime(once);
  }
  state.counters["B/s"] =
      static_cast<double>(bytes) * static_cast<double>(state.iterations()) / seconds;
  state.counters["of_copy"] = copy_seconds / seconds;
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"experts", "top_k", "tokens", "cold"})->UseManualTime()->Iterations(5);
  for (const std::int64_t cold : {0, 1}) {
    for (const std::int64_t tokens : {32, 512, 8192}) {
      b->Args({256, 8, tokens, cold})->Args({128, 8, tokens, cold});
    }
  }
}

BENCHMARK_CAPTURE(choose, top_k, false)->Apply(shapes);
BENCHMARK_CAPTURE(choose, forced_ids, true)->Apply(shapes);

}  // namespace
