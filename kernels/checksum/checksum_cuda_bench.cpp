#include "checksum/checksum_cuda.hpp"
#include "gpu_benchmark.hpp"

/// The checksum of one expert's weights. Arguments: hidden, intermediate, whether the L2 is cold.
/// The ceiling is a device-to-device copy that moves as many bytes, in the same run and state of
/// the L2: `of_copy` is the copy's time over the checksum's.
namespace {

void checksum(benchmark::State& state) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  const auto count =
      3 * static_cast<std::size_t>(state.range(0)) * static_cast<std::size_t>(state.range(1));
  moevar::gpu::Timer timer(state.range(2) == 1);
  const moevar::cuda::DeviceArray<moevar::BFloat16> weights(count);
  const moevar::cuda::DeviceArray<moevar::BFloat16> copy(count / 2);
  const moevar::cuda::DeviceArray<std::uint64_t> sum(1);
  MOEVAR_CUDA(cudaMemsetAsync(weights.data(), 0x3C, weights.bytes(), timer.stream().raw()));
  double copy_seconds = 0.0;
  double sum_seconds = 0.0;
  while (state.KeepRunning()) {
    copy_seconds += timer.seconds([&] {
      moevar::cuda::copy_bytes(copy.data(), weights.data(), copy.bytes(), timer.stream());
    });
    const double seconds = timer.seconds(
        [&] { moevar::checksum::sum_cuda(weights.data(), count, sum.data(), timer.stream()); });
    sum_seconds += seconds;
    state.SetIterationTime(seconds);
  }
  const double bytes = 2.0 * static_cast<double>(count) * static_cast<double>(state.iterations());
  state.counters["B/s"] = bytes / sum_seconds;
  state.counters["copy_B/s"] = bytes / copy_seconds;
  state.counters["of_copy"] = copy_seconds / sum_seconds;
}

BENCHMARK(checksum)
    ->ArgNames({"hidden", "intermediate", "cold"})
    ->ArgsProduct({{7168}, {2048}, {0, 1}})
    ->ArgsProduct({{2048}, {768}, {0, 1}})
    ->UseManualTime()
    ->Iterations(5);

}  // namespace
