#include <ctime>

#include "device_clock/device_clock_cuda.hpp"
#include "gpu_benchmark.hpp"

/// What it costs to look at a GPU's clock.
namespace {

using moevar::Nanoseconds;

Nanoseconds host_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<Nanoseconds>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

/// Device time of a stamp among stamps, in one graph.
void stamp(benchmark::State& state) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  moevar::gpu::Timer timer(false, 100);
  const moevar::cuda::DeviceArray<std::uint64_t> word(1);
  while (state.KeepRunning()) {
    state.SetIterationTime(
        timer.seconds([&] { moevar::device_clock::stamp(word.data(), timer.stream()); }));
  }
}

/// A calibration by the host's clock, and what it finds.
void calibrate(benchmark::State& state) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  const moevar::cuda::Stream stream;
  moevar::device_clock::Calibrator calibrator(stream);
  moevar::device_clock::Offset offset;
  while (state.KeepRunning()) {
    offset = calibrator.calibrate(stream, host_ns);
  }
  state.counters["step_ns"] = static_cast<double>(calibrator.step_ns());
  state.counters["residual_ns"] = static_cast<double>(offset.residual_ns());
  state.counters["round_trip_ns"] = static_cast<double>(offset.min_round_trip_ns);
}

BENCHMARK(stamp)->UseManualTime()->Iterations(5);
BENCHMARK(calibrate)->UseRealTime()->Iterations(20);

}  // namespace
