#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include "run/runner.hpp"
#include "study/parse.hpp"
#include "system/mpi.hpp"

/// How the time of a study grows with the fleet: one size of jobs/studies/scale.toml from its plan
/// to study.h5, on one rank.
namespace moevar {
namespace {

class Nobody final : public run::Observer {
 public:
  void resumed(std::size_t /*done*/) override {}
  void changed(std::span<const std::string> /*changes*/) override {}
  void measured_anew(const std::string& /*why*/) override {}
  void planned(std::span<const study::PhaseSpec> /*plan*/) override {}
  void phase_begins(const study::PhaseSpec& /*phase*/) override {}
  void phase_done(const study::PhaseSpec& /*phase*/) override {}
};

constexpr auto kStudy = R"(
[study]
name = "scale"
order = "listed"
[model]
preset = "deepseek-v3"
layers = 4
[workload]
kind = "synthetic"
skew = 0.53
tokens_per_device = 2048
[fleet]
device = "model"
pool = 131072
transient = false
[conditions]
power_cap_w = [700, 500]
[placement]
policies = ["contiguous", "eplb", "sorted", "vibe"]
fill_slots = true
trace_steps = 2
[phases]
steps = 16
warmup_steps = 0
[record]
timelines = false
)";

void scale_study(benchmark::State& state, const char* scaling) {
  static mpi::Session session(nullptr, nullptr);  // one per process
  const auto world = mpi::Communicator::world();
  const auto parsed = study::parse(kStudy, "scale.toml",
                                   {fmt::format("fleet.devices=[{}]", state.range(0)),
                                    fmt::format("fleet.scaling=[\"{}\"]", scaling)});
  Nobody nobody;
  for (auto _ : state) {
    std::string pattern = (std::filesystem::temp_directory_path() / "moevar-scale-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
      state.SkipWithError("no temporary folder");
      return;
    }
    benchmark::DoNotOptimize(run::run_study(
        world, parsed, {.directory = std::filesystem::path(pattern) / "out", .version = "bench"},
        nobody));
    state.PauseTiming();
    std::filesystem::remove_all(pattern);
    state.ResumeTiming();
  }
  state.SetComplexityN(state.range(0));
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (const int devices : {2048, 8192, 32768, 131072}) {
    bench->Arg(devices);
  }
  bench->Unit(benchmark::kMillisecond)->Complexity(benchmark::oNLogN)->Iterations(1)->UseRealTime();
}

BENCHMARK_CAPTURE(scale_study, strong, "strong")->Apply(sizes);
BENCHMARK_CAPTURE(scale_study, weak, "weak")->Apply(sizes);

}  // namespace
}  // namespace moevar
