// What serving costs besides the steps themselves: the scheduler with all its places taken, and the
// metrics of a run.

#include <benchmark/benchmark.h>

#include "serving/metrics.hpp"
#include "serving/scheduler.hpp"
#include "workload/requests.hpp"

namespace moevar::serving {
namespace {

struct Run {
  std::vector<Served> served;
  std::int64_t steps = 0;
  std::int64_t running = 0;  ///< summed over steps
};

/// Steps of 25 ms and 10 us a token: at 30 requests/s some 150 run at a time, at 100 all 256.
Run serve(std::int64_t requests, double rate_rps) {
  Scheduler scheduler(workload::make_requests({.count = requests, .rate_rps = rate_rps}, 1), {});
  Run run;
  double now_s = 0.0;
  while (!scheduler.done()) {
    if (scheduler.idle(now_s)) {
      now_s = scheduler.next_arrival_s();
    }
    const StepPlan step = scheduler.plan(now_s);
    now_s += 0.025 + 1e-5 * static_cast<double>(step.tokens());
    scheduler.complete(now_s);
    ++run.steps;
    run.running += step.running;
  }
  run.served = scheduler.served();
  return run;
}

void schedule(benchmark::State& state) {
  Run run;
  while (state.KeepRunning()) {
    run = serve(state.range(0), static_cast<double>(state.range(1)));
    benchmark::DoNotOptimize(run.served.data());
  }
  state.counters["steps/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * run.steps), benchmark::Counter::kIsRate);
  state.counters["steps"] = static_cast<double>(run.steps);
  state.counters["running"] = static_cast<double>(run.running) / static_cast<double>(run.steps);
}
BENCHMARK(schedule)
    ->ArgNames({"requests", "rate"})
    ->Args({5'000, 10})
    ->Args({5'000, 100})
    ->Args({100'000, 100})
    ->Unit(benchmark::kMillisecond);

void measure_run(benchmark::State& state) {
  const Run run = serve(state.range(0), static_cast<double>(state.range(1)));
  while (state.KeepRunning()) {
    benchmark::DoNotOptimize(measure(run.served, {.ttft_ms = 250.0, .tpot_ms = 125.0}));
  }
}
BENCHMARK(measure_run)
    ->ArgNames({"requests", "rate"})
    ->Args({5'000, 10})
    ->Args({5'000, 100})
    ->Unit(benchmark::kMillisecond);

void make(benchmark::State& state) {
  while (state.KeepRunning()) {
    benchmark::DoNotOptimize(workload::make_requests({.count = state.range(0)}, 1));
  }
}
BENCHMARK(make)->ArgName("requests")->Arg(5'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace moevar::serving
