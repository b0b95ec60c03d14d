#include <vector>

#include <benchmark/benchmark.h>

#include "fleet/model_fleet.hpp"
#include "fleet/transient.hpp"

namespace {

using namespace moevar;

/// A fleet under a dense GEMM, one core; `s_per_1000s`: seconds that 1000 s of it take.
void transient(benchmark::State& state, const char* preset) {
  const auto& family = fleet::find_family(preset);
  const auto gpus = static_cast<DeviceId>(state.range(0));
  constexpr double kSeconds = 10.0;
  std::vector<fleet::GpuTraits> traits;
  for (DeviceId g = 0; g < gpus; ++g) {
    traits.push_back(fleet::draw_gpu(family, {}, 1, g));
  }
  fleet::Transient fleet(family, traits);
  const std::vector<fleet::Activity> gemm{fleet::gemm_activity()};
  while (state.KeepRunning()) {
    fleet.advance(kSeconds, gemm);
    benchmark::DoNotOptimize(fleet.reading(0));
  }
  state.counters["s_per_1000s"] =
      benchmark::Counter(kSeconds / 1000.0, benchmark::Counter::kIsIterationInvariantRate |
                                                benchmark::Counter::kInvert);
}

BENCHMARK_CAPTURE(transient, h100, "h100-sxm5")->Arg(8)->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(transient, v100, "v100-sxm2")->Arg(4096)->Unit(benchmark::kMillisecond);

}  // namespace
