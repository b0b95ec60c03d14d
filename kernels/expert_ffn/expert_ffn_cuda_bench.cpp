#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include "expert_ffn/elementwise.hpp"
#include "expert_ffn/expert_ffn_cuda.hpp"
#include "system/cublas_lt.hpp"
#include "system/files.hpp"
#include "system/gpu.hpp"
#include "workload/load_file.hpp"

/// The experts' work of three models on one GPU: by the tuned kernels in BF16 and FP8, and by a
/// cuBLASLt loop, all as CUDA graphs; against a dense product of 8192 x 8192 x 8192 by cuBLASLt in
/// the same run. Arguments: model, tokens an expert on average, whether counts are skewed, whether
/// the L2 cache is flushed before every run (then each run is timed alone). Sizes that do not fit
/// into the GPU's free memory are skipped, by name. peers_bench.py reads the counts from the
/// labels.
namespace {

namespace ffn = moevar::expert_ffn;
namespace cuda = moevar::cuda;
namespace cublas_lt = moevar::cublas_lt;
using moevar::BFloat16;

struct Model {
  const char* name;
  ffn::Shape shape;
  std::size_t experts;  ///< of one device
};
constexpr std::array<Model, 3> kModels{{{"deepseek-v3", {7168, 2048}, 32},
                                        {"qwen3-235b", {4096, 1536}, 16},
                                        {"qwen3-30b", {2048, 768}, 16}}};
constexpr std::array<std::int64_t, 5> kTokens{32, 128, 512, 2048, 8192};

/// How tokens fall on experts, up to a factor: the layer in the middle of recorded counts where
/// MOEVAR_LOADS names a file of them (formats: README.md), else falling with the square root of the
/// rank, about as DeepSeek-V3's do (sgl-project/sglang issue 6017).
std::vector<double> popularity(std::size_t experts) {
  std::vector<double> parts(experts);
  const char* const path = std::getenv("MOEVAR_LOADS");
  if (path == nullptr) {
    constexpr std::size_t kStride = 5;  // prime to the numbers of experts: mixes the ranks
    for (std::size_t e = 0; e < experts; ++e) {
      parts[e * kStride % experts] = 1.0 / std::sqrt(static_cast<double>(e + 1));
    }
    return parts;
  }
  const auto loads = moevar::workload::parse_loads(moevar::files::read_text(path), path);
  const std::size_t middle = loads.counts.extent(1) / 2;
  for (std::size_t e = 0; e < experts; ++e) {
    // of files of fewer experts, the first ones again
    parts[e] = loads.counts(0, middle, e % loads.counts.extent(2));
  }
  return parts;
}

/// Rows of every expert: all equal, or by popularity, the sum being the same.
std::vector<std::size_t> counts(std::size_t experts, std::size_t tokens, bool skewed) {
  std::vector<std::size_t> rows(experts, tokens);
  if (!skewed) {
    return rows;
  }
  const auto parts = popularity(experts);
  const double sum = std::accumulate(parts.begin(), parts.end(), 0.0);
  const std::size_t all = experts * tokens;
  double before = 0.0;
  std::size_t given = 0;
  for (std::size_t e = 0; e < experts; ++e) {
    before += parts[e];
    // of the running sum, so that all are given
    const auto end = static_cast<std::size_t>(
        std::llround(static_cast<double>(all) * std::min(before / sum, 1.0)));
    rows[e] = (e + 1 == experts ? all : end) - given;
    given += rows[e];
  }
  return rows;
}

/// FLOP/s of the dense product, measured once: half a second of it, tuned.
double dense_flops_per_s(const cuda::Stream& stream) {
  static const double rate = [&stream] {
    constexpr std::size_t kSize = 8192;
    cublas_lt::Handle handle;
    cublas_lt::Gemm gemm(handle, {kSize, kSize, kSize}, 8);
    const cuda::DeviceArray<BFloat16> memory(3 * kSize * kSize);
    ffn::fill_noise(memory.data(), memory.size(), stream);
    const cublas_lt::Operands operands{memory.data(), memory.data() + kSize * kSize,
                                       memory.data() + 2 * kSize * kSize};
    gemm.tune(operands, stream);
    const cuda::Event start;
    const cuda::Event end;
    constexpr int kRepeats = 300;
    start.record(stream);
    for (int i = 0; i < kRepeats; ++i) {
      gemm.run(operands, stream);
    }
    end.record(stream);
    end.synchronise();
    return cublas_lt::flops(gemm.product()) * kRepeats / (1e-6 * end.us_since(start));
  }();
  return rate;
}

/// The experts of one model in one precision, with what runs them.
struct Setup {
  const Model* model;
  ffn::Precision precision;
  ffn::Method method;
  std::size_t most_rows;
  cuda::DeviceArray<std::byte> slots;
  std::vector<const void*> slot;
  std::optional<ffn::DeviceExperts> experts;

  static std::size_t bytes(const Model& model, ffn::Precision precision, std::size_t rows) {
    const std::size_t row = 4 * model.shape.intermediate + 2 * model.shape.intermediate +
                            (precision == ffn::Precision::fp8 ? model.shape.hidden : 0);
    // tuning has input and output of its own, the benchmark as well
    return model.experts * ffn::slot_bytes(model.shape, precision) +
           rows * (row + 8 * model.shape.hidden) + (std::size_t{1} << 30U);
  }

  Setup(const Model& which, ffn::Precision with, ffn::Method by, std::size_t rows,
        const cuda::Stream& stream)
      : model(&which), precision(with), method(by), most_rows(rows) {
    const std::size_t bytes = ffn::slot_bytes(which.shape, with);
    const std::size_t values = 3 * which.shape.hidden * which.shape.intermediate;
    slots = cuda::DeviceArray<std::byte>(which.experts * bytes);
    const cuda::DeviceArray<BFloat16> plain(values);
    ffn::fill_noise(plain.data(), values, stream);
    for (std::size_t e = 0; e < which.experts; ++e) {
      slot.push_back(slots.data() + e * bytes);
      ffn::to_slot(which.shape, with, plain.data(), slots.data() + e * bytes, stream);
    }
    stream.synchronise();
    experts.emplace(which.shape, with, ffn::DeviceOptions{which.experts, rows, by, 0});
    std::vector<std::size_t> tuned;
    for (const std::int64_t tokens : kTokens) {
      tuned.push_back(static_cast<std::size_t>(tokens));
    }
    experts->tune(slot, tuned, stream);
  }
};

/// Only one is kept: they are large. Null where memory does not suffice.
Setup* setup_for(const Model& model, ffn::Precision precision, ffn::Method method,
                 std::size_t tokens, const cuda::Stream& stream) {
  static std::unique_ptr<Setup> kept;
  const std::size_t wanted = tokens * model.experts;
  if (kept && kept->model == &model && kept->precision == precision && kept->method == method &&
      kept->most_rows >= wanted) {
    return kept.get();
  }
  kept.reset();
  const std::size_t free = cuda::memory().free;
  if (Setup::bytes(model, precision, wanted) > free) {
    return nullptr;
  }
  // for the largest size of this model that fits, so that every size is tuned once
  std::size_t rows = wanted;
  for (const std::int64_t other : kTokens) {
    const std::size_t all = static_cast<std::size_t>(other) * model.experts;
    rows = Setup::bytes(model, precision, all) <= free ? std::max(rows, all) : rows;
  }
  kept = std::make_unique<Setup>(model, precision, method, rows, stream);
  return kept.get();
}

/// Seconds of a graph's launch: many in a row, or one after the L2 cache was overwritten, which
/// also gives the host time to queue the launch.
class Stopwatch {
 public:
  explicit Stopwatch(bool cold) : flush_(cold ? 4 * cuda::l2_bytes() : 0) {}

  double seconds(const cuda::Graph& graph, const cuda::Stream& stream) {
    if (flush_.size() > 0) {
      MOEVAR_CUDA(cudaMemsetAsync(flush_.data(), 0, flush_.bytes(), stream.raw()));
      return of_launches(graph, 1, stream);
    }
    if (launches_ == 0) {
      constexpr double kSpan = 5e-3;
      graph.launch(stream);
      launches_ = static_cast<int>(
          std::clamp(std::ceil(kSpan / of_launches(graph, 1, stream)), 1.0, 100.0));
    }
    return of_launches(graph, launches_, stream);
  }

 private:
  double of_launches(const cuda::Graph& graph, int launches, const cuda::Stream& stream) {
    start_.record(stream);
    for (int i = 0; i < launches; ++i) {
      graph.launch(stream);
    }
    end_.record(stream);
    end_.synchronise();
    return 1e-6 * static_cast<double>(end_.us_since(start_)) / launches;
  }

  cuda::DeviceArray<std::byte> flush_;
  cuda::Event start_;
  cuda::Event end_;
  int launches_ = 0;
};

void experts(benchmark::State& state, ffn::Precision precision, ffn::Method method) {
  if (const auto why = moevar::gpu::why_none_visible(); !why.empty()) {
    state.SkipWithError(why.c_str());
    return;
  }
  static const cuda::Stream stream;
  const Model& model = kModels.at(static_cast<std::size_t>(state.range(0)));
  const auto tokens = static_cast<std::size_t>(state.range(1));
  const double dense = dense_flops_per_s(stream);
  Setup* const setup = setup_for(model, precision, method, tokens, stream);
  if (setup == nullptr) {
    state.SkipWithError(fmt::format("{} at {} tokens an expert needs {} MiB, and {} are free",
                                    model.name, tokens,
                                    Setup::bytes(model, precision, tokens * model.experts) >> 20U,
                                    cuda::memory().free >> 20U)
                            .c_str());
    return;
  }
  const auto rows = counts(model.experts, tokens, state.range(2) != 0);
  const std::size_t total = model.experts * tokens;
  const cuda::DeviceArray<BFloat16> x(total * model.shape.hidden);
  const cuda::DeviceArray<BFloat16> y(x.size());
  ffn::fill_noise(x.data(), x.size(), stream);
  std::vector<ffn::DeviceGroup> groups(model.experts);
  for (std::size_t e = 0; e < model.experts; ++e) {
    groups[e] = {setup->slot[e], rows[e]};
  }
  const auto work = [&] { setup->experts->run(groups, x.data(), y.data(), stream); };
  work();
  const auto graph = cuda::Graph::of(stream, work);
  Stopwatch stopwatch(state.range(3) != 0);
  (void)stopwatch.seconds(graph, stream);
  double seconds = 0.0;
  while (state.KeepRunning()) {
    const double once = stopwatch.seconds(graph, stream);
    state.SetIterationTime(once);
    seconds += once;
  }
  const double mean = seconds / static_cast<double>(state.iterations());
  const double rate = ffn::flops(model.shape, total) / mean;
  state.counters["FLOP/s"] = rate;
  state.counters["of_dense"] = rate / dense;
  state.counters["dense_FLOP/s"] = dense;
  state.counters["B/s"] = ffn::device_bytes(model.shape, precision, rows) / mean;
  state.SetLabel(fmt::format("{} hidden={} intermediate={} rows={} [{}]", model.name,
                             model.shape.hidden, model.shape.intermediate, fmt::join(rows, ","),
                             setup->experts->chosen(tokens)));
}

/// One model after the other, so that what is compared was timed within seconds.
const bool registered = [] {
  struct Kind {
    const char* name;
    ffn::Precision precision;
    ffn::Method method;
  };
  const std::array<Kind, 3> kinds{
      {{"experts/bf16", ffn::Precision::bf16, ffn::Method::automatic},
       {"experts/cublaslt_loop", ffn::Precision::bf16, ffn::Method::cublaslt},
       {"experts/fp8", ffn::Precision::fp8, ffn::Method::automatic}}};
  constexpr std::int64_t kFew = 128;
  for (std::int64_t model = 0; model < static_cast<std::int64_t>(kModels.size()); ++model) {
    for (const Kind& kind : kinds) {
      auto* const bench =
          benchmark::RegisterBenchmark(kind.name, experts, kind.precision, kind.method);
      bench->ArgNames({"model", "tokens", "skewed", "cold"})->UseManualTime()->MinTime(0.2);
      bench->Unit(benchmark::kMicrosecond);
      // the largest first: what it is set up with serves all
      for (auto tokens = kTokens.rbegin(); tokens != kTokens.rend(); ++tokens) {
        bench->Args({model, *tokens, 0, 0})->Args({model, *tokens, 1, 0});
        if (*tokens <= kFew) {
          bench->Args({model, *tokens, 0, 1});
        }
      }
    }
  }
  return true;
}();

}  // namespace
