// What sampling takes from a phase: a node's polling thread, against the fake NVML.
//
//   telemetry_bench          cost_percent: the thread's processor time ÷ wall-clock time
#include <chrono>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include "conditions/poller.hpp"
#include "fake_gpus.hpp"

namespace moevar::conditions {
namespace {

/// Samples 4 GPUs for a second, at the benchmark's rate.
void poll(benchmark::State& state) {
  auto& gpus = fake_nvml::FakeGpus::only();
  gpus.reset();
  double cpu_s = 0.0;
  double wall_s = 0.0;
  std::size_t readings = 0;
  for (auto unused : state) {
    std::vector<nvml::Device> devices;
    for (const auto& uuid : fake_nvml::FakeGpus::uuids(fake_nvml::FakeGpus::kCount)) {
      devices.push_back(nvml::Device::find(uuid));
    }
    Poller poller(std::move(devices), static_cast<double>(state.range(0)), {});
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const auto result = poller.stop();
    cpu_s += result.cpu_s;
    wall_s += result.wall_s;
    readings += result.readings.front().size();
  }
  state.counters["cost_percent"] = 100.0 * cpu_s / wall_s;
  state.counters["readings_per_s"] = static_cast<double>(readings) / wall_s;
  state.counters["us_per_reading"] =
      1e6 * cpu_s / static_cast<double>(readings * fake_nvml::FakeGpus::kCount);
}
BENCHMARK(poll)->ArgName("hz")->Arg(10)->Arg(20)->Arg(100)->Iterations(5)->Unit(
    benchmark::kMillisecond);

}  // namespace
}  // namespace moevar::conditions
