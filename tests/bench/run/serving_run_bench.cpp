#include <optional>
#include <string>

#include <benchmark/benchmark.h>

#include "placement/placement.hpp"
#include "run/model_backend.hpp"
#include "run/routing_source.hpp"
#include "run/serving_run.hpp"
#include "study/parse.hpp"
#include "workload/loads.hpp"

namespace {

using namespace moevar;

/// A whole serving run of a study's first phase in virtual time, on one core: DeepSeek-V3's 58
/// layers over 8 MI300X, ShareGPT-like requests at ViBE's crossing of 6.5 requests/s per GPU
/// (arXiv 2606.00735) or, lightly loaded, at 1.
void serve(benchmark::State& state) {
  static mpi::Session session(nullptr, nullptr);
  const auto world = mpi::Communicator::world();
  const auto parsed = study::parse(
      R"([model]
preset = "deepseek-v3"
[fleet]
device = "model"
preset = "mi300x"
[workload]
tokens_per_device = 1024
[serving]
rates = [6.5]
lengths = "sharegpt"
)",
      "benchmark",
      {"serving.requests=" + std::to_string(state.range(0)),
       "serving.rates=[" + std::to_string(0.1 * static_cast<double>(state.range(1))) + "]"});
  const auto& study = parsed.study;
  const auto phase = study::make_plan(study).front();
  const auto routing = run::synthetic_routing(study, phase.experts, false);
  const auto loads = run::sample_loads(world, *routing, 0, 4, 8 * 1024);
  const auto mean_loads = workload::mean_loads(loads);
  run::ModelBackend backend(world, study.fleet, study.model, study.seed, phase.devices, 1024);
  backend.enter({});
  const auto speeds = backend.profile(phase.slots_per_device, 1e5, {});
  const auto placement = placement::solve(placement::find_policy("vibe"),
                                          {.mean_loads = mean_loads,
                                           .speeds = speeds,
                                           .devices = phase.devices,
                                           .slots_per_device = phase.slots_per_device});
  (void)backend.move_to(placement);
  std::size_t steps = 0;
  std::optional<run::RestOfStep> rest;
  const auto only = [&](int) -> const workload::Routing& { return *routing; };
  for (auto _ : state) {
    const auto result = run::serve_phase(world,
                                         {.study = study,
                                          .phase = phase,
                                          .recorded = {},
                                          .routing = only,
                                          .first_step = 0,
                                          .rest = rest,
                                          .placement = placement,
                                          .speeds = speeds,
                                          .planned = mean_loads},
                                         backend);
    steps = result.record.steps.size();
  }
  state.counters["steps"] = static_cast<double>(steps);
  state.counters["requests/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * state.range(0)), benchmark::Counter::kIsRate);
}
BENCHMARK(serve)
    ->ArgNames({"requests", "tenths_per_s"})
    ->Args({5000, 65})
    ->Args({5000, 10})
    ->Unit(benchmark::kSecond);

}  // namespace
