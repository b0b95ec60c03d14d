#include <algorithm>
#include <chrono>
#include <thread>

#include "burn/burn_cuda.hpp"
#include "gpu_benchmark.hpp"
#include "system/nvml.hpp"

/// What holds a GPU at its power limit does there. Arguments: duty in percent, seconds. Counters:
/// FLOP/s over all of the time; of the last half of it the mean power, as a share of the enforced
/// limit too, SM clock and temperature, where NVML is there, and whether the power cap held the
/// clock down (1 is always).
namespace {

struct Seen {
  double power_w = 0.0;
  double clock_mhz = 0.0;
  double temperature_c = 0.0;
  double capped = 0.0;
};

/// Means over `seconds`, a look each 50 ms.
Seen watch(const moevar::nvml::Device& gpu, double seconds) {
  constexpr std::uint64_t kSoftwarePowerCap = 0x4;
  const int looks = std::max(1, static_cast<int>(seconds / 0.05));
  Seen mean;
  for (int i = 0; i < looks; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const auto now = gpu.sensors();
    mean.power_w += now.power_w / looks;
    mean.clock_mhz += now.sm_clock_mhz / looks;
    mean.temperature_c += now.temperature_c / looks;
    mean.capped += (now.clock_reasons & kSoftwarePowerCap) != 0 ? 1.0 / looks : 0.0;
  }
  return mean;
}

void burn(benchmark::State& state) {
  if (moevar::gpu::skipped(state)) {
    return;
  }
  const double duty = static_cast<double>(state.range(0)) / 100.0;
  const auto half = static_cast<double>(state.range(1)) / 2.0;
  moevar::burn::Burner burner;
  double flops = 0.0;
  Seen seen;
  while (state.KeepRunning()) {
    burner.start(duty);
    std::this_thread::sleep_for(std::chrono::duration<double>(half));
    if (moevar::nvml::available()) {
      seen = watch(moevar::nvml::Device::find(moevar::gpu::visible().front().uuid), half);
    } else {
      std::this_thread::sleep_for(std::chrono::duration<double>(half));
    }
    flops += burner.stop();
  }
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsRate);
  state.counters["size"] = burner.size();
  if (moevar::nvml::available()) {
    const auto gpu = moevar::nvml::Device::find(moevar::gpu::visible().front().uuid);
    state.counters["power_w"] = seen.power_w;
    state.counters["of_limit"] = 1e3 * seen.power_w / gpu.enforced_limit();
    state.counters["sm_mhz"] = seen.clock_mhz;
    state.counters["celsius"] = seen.temperature_c;
    state.counters["capped"] = seen.capped;
  }
}

BENCHMARK(burn)
    ->ArgNames({"duty", "seconds"})
    ->UseRealTime()
    ->Iterations(1)
    ->Args({100, 6})
    ->Args({50, 4})
    ->Args({10, 4});

}  // namespace
