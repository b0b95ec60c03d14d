#include <benchmark/benchmark.h>

#include "token_exchange/token_exchange.hpp"

/// One device's way out (plan, permute) and back (unpermute). Arguments: hidden, tokens, top_k,
/// slots.
namespace {

namespace kernel = moevar::token_exchange;

struct Setup {
  explicit Setup(const benchmark::State& state)
      : hidden(static_cast<std::size_t>(state.range(0))),
        tokens(static_cast<std::size_t>(state.range(1))),
        top_k(static_cast<std::size_t>(state.range(2))),
        slots(static_cast<std::size_t>(state.range(3))),
        slot_of_row(tokens * top_k),
        permutation(slot_of_row.size(), slots),
        x(tokens * hidden, 0.5F),
        rows(slot_of_row.size() * hidden),
        weights(slot_of_row.size(), 0.25F) {
    for (std::size_t i = 0; i < slot_of_row.size(); ++i) {
      slot_of_row[i] = static_cast<std::int32_t>((i * 7919) % slots);
    }
    kernel::plan(slot_of_row, permutation);
  }
  void report(benchmark::State& state) const {
    state.SetBytesProcessed(static_cast<std::int64_t>(kernel::bytes(hidden, tokens, top_k)) *
                            static_cast<std::int64_t>(state.iterations()));
  }

  std::size_t hidden, tokens, top_k, slots;
  std::vector<std::int32_t> slot_of_row;
  kernel::Permutation permutation;
  std::vector<float> x, rows, weights;
};

void plan_and_permute(benchmark::State& state) {
  Setup s(state);
  while (state.KeepRunning()) {
    kernel::plan(s.slot_of_row, s.permutation);
    kernel::permute_cpu(s.hidden, s.top_k, s.permutation, s.x, s.rows);
    benchmark::ClobberMemory();
  }
  s.report(state);
}

void unpermute(benchmark::State& state) {
  Setup s(state);
  while (state.KeepRunning()) {
    kernel::unpermute_cpu(s.hidden, s.top_k, s.permutation, s.rows, s.weights, s.x);
    benchmark::ClobberMemory();
  }
  s.report(state);
}

BENCHMARK(plan_and_permute)->Args({256, 256, 4, 32})->Args({1024, 1024, 8, 128});
BENCHMARK(unpermute)->Args({256, 256, 4, 32})->Args({1024, 1024, 8, 128});

}  // namespace
