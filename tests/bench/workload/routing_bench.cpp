// The loads that a study of DeepSeek-V3's size needs: 58 layers of 256 experts, top-8.

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "workload/routing.hpp"

namespace moevar::workload {
namespace {

constexpr RoutingShape kShape{58, 256, 8};
constexpr std::int64_t kSteps = 64;

/// "[a,b,...]" of size elements.
template <class Element>
std::string list(int size, Element element) {
  std::string text;
  for (int i = 0; i < size; ++i) {
    text += i == 0 ? '[' : ',';
    text += element(i);
  }
  text += ']';
  return text;
}

void sample_steps(benchmark::State& state, const Routing& routing) {
  const std::int64_t tokens = state.range(0);
  const RoutingShape shape = routing.shape();
  std::vector<std::uint32_t> counts(static_cast<std::size_t>(shape.layers) *
                                    static_cast<std::size_t>(shape.experts));
  while (state.KeepRunning()) {
    for (std::int64_t step = 0; step < kSteps; ++step) {
      routing.sample(step, tokens, counts);
      benchmark::DoNotOptimize(counts.data());
    }
  }
  state.counters["per_count"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(kSteps) *
                             static_cast<double>(counts.size()),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void synthetic(benchmark::State& state, SyntheticSpec spec) {
  sample_steps(state, *make_synthetic(kShape, spec, 1));
}

std::unique_ptr<Routing> zipf_counts() {
  const auto layer = [](int l) {
    return list(kShape.experts, [l](int e) {
      const int rank = (e * 37 + l * 11) % kShape.experts;
      return std::to_string(std::lround(1e6 / std::pow(rank + 1, 0.5)));
    });
  };
  return make_counts("{\"logical_count\":" + list(kShape.layers, layer) + "}", "zipf.json", kShape,
                     1);
}

void counts(benchmark::State& state) { sample_steps(state, *zipf_counts()); }

void token_table(benchmark::State& state) {
  const auto routing = make_synthetic(kShape, {}, 1);
  std::int64_t step = 0;
  while (state.KeepRunning()) {
    benchmark::DoNotOptimize(routing->token_experts(step++, 0, state.range(0)));
  }
}

void recorded_tokens(benchmark::State& state) {
  const auto source = make_synthetic({kShape.layers, kShape.experts, kShape.top_k}, {}, 1);
  const auto layer = [&](int l) {
    const auto experts = source->token_experts(0, l, 4096);
    return list(4096, [&](int token) {
      return list(kShape.top_k, [&](int choice) { return std::to_string(experts(token, choice)); });
    });
  };
  sample_steps(state, *make_tokens("{\"topk_ids\":" + list(kShape.layers, layer) + "}", "ids.json",
                                   kShape, 1));
}

constexpr SyntheticSpec kStatic{0.5, 0.0, 0.0};
constexpr SyntheticSpec kBursts{0.5, 0.3, 0.0};
constexpr SyntheticSpec kDrift{0.5, 0.0, 0.01};
constexpr SyntheticSpec kBoth{0.5, 0.3, 0.01};

BENCHMARK_CAPTURE(synthetic, static, kStatic)
    ->Unit(benchmark::kMillisecond)
    ->Arg(8)
    ->Arg(512)
    ->Arg(32768);
BENCHMARK_CAPTURE(synthetic, burst, kBursts)->Unit(benchmark::kMillisecond)->Arg(32768);
BENCHMARK_CAPTURE(synthetic, drift, kDrift)->Unit(benchmark::kMillisecond)->Arg(32768);
BENCHMARK_CAPTURE(synthetic, burst_drift, kBoth)->Unit(benchmark::kMillisecond)->Arg(32768);
BENCHMARK(counts)->Unit(benchmark::kMillisecond)->Arg(32768);
BENCHMARK(recorded_tokens)->Unit(benchmark::kMillisecond)->Arg(4096)->Arg(32768);
BENCHMARK(token_table)->Unit(benchmark::kMicrosecond)->Arg(4096)->Arg(32768);

}  // namespace
}  // namespace moevar::workload
