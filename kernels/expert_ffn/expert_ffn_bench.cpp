#include <cstdint>

#include <benchmark/benchmark.h>
#include <cblas.h>

#include "expert_ffn/expert_ffn.hpp"

/// run_cpu against one dense matrix product of as many FLOPs, both single-threaded. Arguments:
/// hidden, intermediate, experts, rows per expert.
namespace {

using moevar::expert_ffn::Group;
using moevar::expert_ffn::Shape;

std::size_t argument(const benchmark::State& state, std::size_t index) {
  return static_cast<std::size_t>(state.range(index));
}

void report(benchmark::State& state, const Shape& shape, std::size_t rows) {
  state.counters["FLOP/s"] = benchmark::Counter(
      moevar::expert_ffn::flops(shape, rows) * static_cast<double>(state.iterations()),
      benchmark::Counter::kIsRate);
}

void grouped(benchmark::State& state) {
  const Shape shape{argument(state, 0), argument(state, 1)};
  const std::size_t experts = argument(state, 2);
  const std::size_t rows = argument(state, 3);
  const std::size_t matrix = shape.hidden * shape.intermediate;
  const std::vector<float> weights(experts * 3 * matrix, 0.01F);
  std::vector<Group> groups;
  for (std::size_t e = 0; e < experts; ++e) {
    const auto mine = std::span(weights).subspan(e * 3 * matrix, 3 * matrix);
    groups.push_back({{mine.first(matrix), mine.subspan(matrix, matrix), mine.last(matrix)}, rows});
  }
  const std::vector<float> x(experts * rows * shape.hidden, 0.5F);
  std::vector<float> y(x.size());
  moevar::expert_ffn::Workspace workspace(shape);
  while (state.KeepRunning()) {
    moevar::expert_ffn::run_cpu(shape, groups, x, y, workspace);
    benchmark::ClobberMemory();
  }
  report(state, shape, experts * rows);
  state.counters["B/s"] = benchmark::Counter(
      moevar::expert_ffn::bytes(shape, groups) * static_cast<double>(state.iterations()),
      benchmark::Counter::kIsRate);
}

void dense_sgemm(benchmark::State& state) {
  const Shape shape{argument(state, 0), argument(state, 1)};
  const std::size_t rows = argument(state, 2) * argument(state, 3);
  openblas_set_num_threads(1);
  const auto m = static_cast<blasint>(rows);
  const auto n = static_cast<blasint>(3 * shape.intermediate);
  const auto k = static_cast<blasint>(shape.hidden);
  const std::vector<float> a(rows * shape.hidden, 0.5F);
  const std::vector<float> b(3 * shape.intermediate * shape.hidden, 0.01F);
  std::vector<float> c(rows * 3 * shape.intermediate);
  while (state.KeepRunning()) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0F, a.data(), k, b.data(), k,
                0.0F, c.data(), n);
    benchmark::ClobberMemory();
  }
  report(state, shape, rows);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"hidden", "intermediate", "experts", "rows"})
      ->Args({256, 512, 8, 1})
      ->Args({256, 512, 8, 8})
      ->Args({256, 512, 8, 64})
      ->Args({256, 512, 8, 512})
      ->Args({512, 1024, 4, 256})
      ->Args({1024, 2048, 2, 1024})
      ->MinTime(0.3);
}

BENCHMARK(grouped)->Apply(shapes);
BENCHMARK(dense_sgemm)->Apply(shapes);

}  // namespace
