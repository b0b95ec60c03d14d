#include <cmath>
#include <cstdint>
#include <string>

#include <benchmark/benchmark.h>

#include "base/random.hpp"
#include "placement/placement.hpp"

namespace {

using namespace moevar;
using namespace moevar::placement;

/// DeepSeek-V3's 58 MoE layers of 256 experts over 16 steps: lognormal means, bursts on top, and
/// devices that differ by a few percent.
struct Case {
  static constexpr std::size_t kLayers = 58;
  static constexpr std::size_t kExperts = 256;
  static constexpr std::size_t kSteps = 16;

  explicit Case(int devices) : trace({kSteps, kLayers, kExperts}), mean({kLayers, kExperts}, 0.0) {
    const auto tokens = 1024.0 * devices * 8 / kExperts;
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      for (std::size_t e = 0; e < kExperts; ++e) {
        const auto key = RandomKey(1)[layer][e];
        const double usual = tokens * std::exp(key.normal() - 0.5);
        for (std::size_t step = 0; step < kSteps; ++step) {
          trace(step, layer, e) = std::floor(usual * std::exp(0.3 * key[step].normal()));
          mean(layer, e) += trace(step, layer, e) / kSteps;
        }
      }
    }
    for (int d = 0; d < devices; ++d) {
      const double slowness = 1.0 + 0.03 * RandomKey(2)[static_cast<std::uint64_t>(d)].normal();
      speeds.emplace_back(
          std::vector<double>{1000, 4000, 16000, 64000},
          std::vector<double>{90 * slowness, 150 * slowness, 500 * slowness, 2000 * slowness});
    }
  }

  Tensor<double, 3> trace;
  Matrix<double> mean;
  SpeedModels speeds;
};

/// solve_ms is the figure that moevar reports; the policy's own time is that of assign alone.
void solve_layers(benchmark::State& state, const Policy* policy, bool with_trace) {
  const auto devices = static_cast<int>(state.range(0));
  const auto slots = static_cast<int>(state.range(1));
  const Case given(devices);
  Problem problem{given.mean, given.speeds, devices, slots / devices, 1};
  if (with_trace) {
    problem.trace = &given.trace;
  }
  double solve_ms = 0.0;
  for (auto _ : state) {
    const auto placement = solve(*policy, problem);
    solve_ms += placement.solve_ms;
    state.SetIterationTime(placement.solve_ms * 1e-3);
    benchmark::DoNotOptimize(placement.expert_of_slot.flat().data());
  }
  state.counters["solve_ms"] = benchmark::Counter(solve_ms, benchmark::Counter::kAvgIterations);
}

void assign_layers(benchmark::State& state, const Policy* policy) {
  const auto devices = static_cast<int>(state.range(0));
  const auto slots = static_cast<std::size_t>(state.range(1));
  const Case given(devices);
  const Problem problem{given.mean, given.speeds, devices, static_cast<int>(slots) / devices, 1};
  Matrix<std::int32_t> expert({Case::kLayers, slots});
  Matrix<double> share({Case::kLayers, slots}, -1.0);
  for (auto _ : state) {
    for (int layer = 0; layer < problem.layers(); ++layer) {
      policy->assign(LayerProblem(problem, layer), {expert.row(layer), share.row(layer)});
    }
    benchmark::DoNotOptimize(expert.flat().data());
  }
}

const bool registered = [] {
  for (const auto& policy : policies()) {
    const std::string name(policy.name);
    // a policy that plans every step anew has no placement for a trace of many
    for (const bool with_trace : {false, true}) {
      if (with_trace && policy.per_step()) {
        continue;
      }
      benchmark::RegisterBenchmark((name + (with_trace ? "/solve/trace" : "/solve/mean")).c_str(),
                                   solve_layers, &policy, with_trace)
          ->ArgNames({"devices", "slots"})
          ->Args({8, 256})
          ->Args({32, 256})
          ->Args({32, 288})
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
    if (!policy.per_step()) {
      benchmark::RegisterBenchmark((name + "/assign").c_str(), assign_layers, &policy)
          ->ArgNames({"devices", "slots"})
          ->Args({8, 256})
          ->Args({32, 256})
          ->Args({32, 288})
          ->Unit(benchmark::kMillisecond);
    }
  }
  return true;
}();

}  // namespace
