#include "gpu_benchmark.hpp"
#include "token_exchange/token_exchange.hpp"
#include "token_exchange/token_exchange_cuda.hpp"

/// One GPU's way out and back, and the regrouping of what arrives. Arguments: hidden, tokens,
/// top_k, slots, whether the L2 is cold. The ceiling is a device-to-device copy that moves as many
/// bytes in the same state of the L2: `of_copy` is the copy's time over the kernel's.
namespace {

namespace kernel = moevar::token_exchange;
using moevar::BFloat16;
using moevar::cuda::DeviceArray;

std::size_t argument(const benchmark::State& state, std::size_t index) {
  return static_cast<std::size_t>(state.range(index));
}

struct Setup {
  explicit Setup(const benchmark::State& state)
      : hidden(argument(state, 0)),
        tokens(argument(state, 1)),
        top_k(argument(state, 2)),
        slots(argument(state, 3)),
        rows(tokens * top_k),
        timer(argument(state, 4) == 1),
        plan(rows, slots),
        slot_of_row(rows),
        x(tokens * hidden),
        expanded(rows * hidden),
        weights(rows) {
    std::vector<std::int32_t> slot(rows);
    for (std::size_t i = 0; i < rows; ++i) {
      slot[i] = static_cast<std::int32_t>((i * 7919 + i / top_k * 31) % slots);
    }
    const auto& stream = timer.stream();
    moevar::cuda::to_device(std::span<const std::int32_t>(slot), slot_of_row.data(), stream);
    MOEVAR_CUDA(cudaMemsetAsync(x.data(), 0x3C, x.bytes(), stream.raw()));
    MOEVAR_CUDA(cudaMemsetAsync(expanded.data(), 0x3C, expanded.bytes(), stream.raw()));
    MOEVAR_CUDA(cudaMemsetAsync(weights.data(), 0x3C, weights.bytes(), stream.raw()));
    plan.make(slot_of_row.data(), rows, stream);
    stream.synchronise();
  }

  /// Times `work`, which moves `bytes`, beside a copy that does.
  template <class Work>
  void measure(benchmark::State& state, double bytes, const Work& work) {
    const auto half = static_cast<std::size_t>(bytes / 2.0);
    const DeviceArray<std::byte> from(half);
    const DeviceArray<std::byte> to(half);
    double copy_seconds = 0.0;
    double work_seconds = 0.0;
    while (state.KeepRunning()) {
      copy_seconds += timer.seconds([&] {
        MOEVAR_CUDA(cudaMemcpyAsync(to.data(), from.data(), half, cudaMemcpyDeviceToDevice,
                                    timer.stream().raw()));
      });
      const double seconds = timer.seconds(work);
      work_seconds += seconds;
      state.SetIterationTime(seconds);
    }
    const auto runs = static_cast<double>(state.iterations());
    state.counters["B/s"] = bytes * runs / work_seconds;
    state.counters["copy_B/s"] = bytes * runs / copy_seconds;
    state.counters["of_copy"] = copy_seconds / work_seconds;
  }

  std::size_t hidden, tokens, top_k, slots, rows;
  moevar::gpu::Timer timer;
  kernel::DevicePlan plan;
  DeviceArray<std::int32_t> slot_of_row;
  DeviceArray<BFloat16> x, expanded;
  DeviceArray<float> weights;
};

void plan(benchmark::State& state) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  Setup s(state);
  while (state.KeepRunning()) {
    state.SetIterationTime(
        s.timer.seconds([&] { s.plan.make(s.slot_of_row.data(), s.rows, s.timer.stream()); }));
  }
}

void permute(benchmark::State& state) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  Setup s(state);
  s.measure(state, kernel::device_bytes(s.hidden, s.tokens, s.top_k), [&] {
    kernel::permute_cuda(s.hidden, s.top_k, s.plan, s.x.data(), s.expanded.data(),
                         s.timer.stream());
  });
}

void unpermute(benchmark::State& state) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  Setup s(state);
  s.measure(state, kernel::device_bytes(s.hidden, s.tokens, s.top_k), [&] {
    kernel::unpermute_cuda(s.hidden, s.top_k, s.plan, s.expanded.data(), s.weights.data(),
                           s.x.data(), s.timer.stream());
  });
}

/// tokens × top_k rows from 8 devices to as many slots.
void group(benchmark::State& state, bool back) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  constexpr std::size_t kSources = 8;
  Setup s(state);
  std::vector<std::int64_t> counts(kSources * s.slots);
  for (std::size_t row = 0; row < s.rows; ++row) {
    ++counts[row * 7919 % counts.size()];
  }
  const DeviceArray<std::int64_t> device_counts(counts.size());
  moevar::cuda::to_device(std::span<const std::int64_t>(counts), device_counts.data(),
                          s.timer.stream());
  kernel::DeviceGrouping grouping(kSources, s.slots, s.rows);
  grouping.make(device_counts.data(), s.rows, s.timer.stream());
  s.timer.stream().synchronise();
  const DeviceArray<BFloat16> other(s.expanded.size());
  s.measure(state, 2.0 * static_cast<double>(s.expanded.bytes()), [&] {
    (back ? kernel::ungroup_cuda : kernel::group_cuda)(s.hidden, grouping, s.expanded.data(),
                                                       other.data(), s.timer.stream());
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"hidden", "tokens", "top_k", "slots", "cold"})->UseManualTime()->Iterations(5);
  for (const std::int64_t cold : {0, 1}) {
    for (const std::int64_t tokens : {32, 512, 8192}) {
      b->Args({7168, tokens, 8, 256, cold})->Args({2048, tokens, 8, 128, cold});
    }
    b->Args({4096, 8192, 8, 128, cold})->Args({2880, 8192, 4, 32, cold});
  }
}

BENCHMARK(plan)->Apply(shapes);
BENCHMARK(permute)->Apply(shapes);
BENCHMARK(unpermute)->Apply(shapes);
BENCHMARK_CAPTURE(group, to_slots, false)->Apply(shapes);
BENCHMARK_CAPTURE(group, back, true)->Apply(shapes);

}  // namespace
