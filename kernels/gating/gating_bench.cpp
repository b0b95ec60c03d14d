#include <vector>

#include <benchmark/benchmark.h>

#include "gating/gating.hpp"

/// Scores, choice and weights of one device's tokens. Arguments: hidden, experts, top_k, tokens.
namespace {

std::size_t argument(const benchmark::State& state, std::size_t index) {
  return static_cast<std::size_t>(state.range(index));
}

void gate(benchmark::State& state) {
  const moevar::gating::Shape shape{argument(state, 0), argument(state, 1), argument(state, 2)};
  const std::size_t tokens = argument(state, 3);
  std::vector<float> x(tokens * shape.hidden);
  std::vector<float> router(shape.experts * shape.hidden);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i % 17) * 0.1F;
  }
  for (std::size_t i = 0; i < router.size(); ++i) {
    router[i] = static_cast<float>(i % 23) * 0.01F;
  }
  std::vector<float> scores(tokens * shape.experts);
  std::vector<std::int32_t> ids(tokens * shape.top_k);
  std::vector<float> weights(ids.size());
  while (state.KeepRunning()) {
    moevar::gating::scores_cpu(shape, x, router, scores);
    moevar::gating::choose_top_k_cpu(shape, scores, ids);
    moevar::gating::softmax_cpu(shape, scores, ids, weights);
    benchmark::ClobberMemory();
  }
  const auto runs = static_cast<double>(state.iterations());
  state.counters["FLOP/s"] =
      benchmark::Counter(moevar::gating::flops(shape, tokens) * runs, benchmark::Counter::kIsRate);
  state.counters["B/s"] =
      benchmark::Counter(moevar::gating::bytes(shape, tokens) * runs, benchmark::Counter::kIsRate);
}

BENCHMARK(gate)
    ->ArgNames({"hidden", "experts", "top_k", "tokens"})
    ->Args({256, 32, 4, 256})
    ->Args({1024, 128, 8, 1024});

}  // namespace
