#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include <benchmark/benchmark.h>

#include "placement/placement.hpp"
#include "record/record.hpp"
#include "run/model_backend.hpp"
#include "study/model_presets.hpp"
#include "system/files.hpp"
#include "workload/routing.hpp"

/// What recording costs. Under mpirun too, with a device a rank or more, as every rank runs each
/// case as often.
namespace {

using namespace moevar;
namespace fs = std::filesystem;

constexpr int kTokensPerDevice = 4096;
constexpr int kTimes = 20;

/// A phase of DeepSeek-V3's layers on modelled H100, as a study runs it: skewed loads, `eplb`.
class Phase {
 public:
  Phase(const mpi::Communicator& comm, int devices, int steps)
      : backend_(comm, study::Fleet{}, model(), 1, devices, kTokensPerDevice),
        routing_(workload::make_synthetic({model().layers, model().experts, model().top_k},
                                          {.skew = 0.53, .burst = 0.1, .drift = 0.01}, 1)) {
    const std::int64_t tokens = std::int64_t{kTokensPerDevice} * devices;
    spec_.devices = devices;
    spec_.policy = "eplb";
    spec_.condition = {700.0, study::Heat::soaked};
    spec_.experts = model().experts;
    spec_.slots_per_device = model().experts / devices;
    backend_.enter(spec_.condition);
    loads_ =
        workload::Loads({static_cast<std::size_t>(steps), static_cast<std::size_t>(model().layers),
                         static_cast<std::size_t>(model().experts)});
    for (int step = 0; step < steps; ++step) {
      routing_->sample(step, tokens, loads_.row(step));
    }
    const auto mean = workload::mean_loads(loads_);
    speeds_ = backend_.profile(spec_.slots_per_device, 8.0 * kTokensPerDevice, {});
    placement_ = placement::solve(placement::find_policy(spec_.policy),
                                  {.mean_loads = mean,
                                   .speeds = speeds_,
                                   .devices = devices,
                                   .slots_per_device = spec_.slots_per_device});
    state_ = backend_.settle();
    result_ = backend_.run({0, 0, 0, tokens, *routing_, loads_, std::span(&placement_, 1)});
    cell_ = record::summarise(spec_, "synthetic", state_, result_.totals, placement_,
                              "between-phases", 0, 0.0);
  }

  void write(record::StudyWriter& writer, int index, bool with_timelines) {
    spec_.index = index;
    writer.write({.spec = spec_,
                  .workload = "synthetic",
                  .heat = study::to_string(spec_.condition.heat),
                  .tokens_per_step = std::int64_t{kTokensPerDevice} * spec_.devices,
                  .timer = backend_.timer(),
                  .sync = backend_.sync(),
                  .fleet = backend_.fleet(),
                  .range = backend_.mine(),
                  .mine = result_.mine,
                  .totals = result_.totals,
                  .state = state_,
                  .telemetry = result_.telemetry,
                  .placement = placement_,
                  .speeds = speeds_,
                  .solved_because = "between-phases",
                  .cell = cell_},
                 with_timelines);
  }

  [[nodiscard]] double device_layer_steps() const {
    return static_cast<double>(result_.totals.layer_ns.size()) * spec_.devices;
  }
  /// The time that the steps take on the devices.
  [[nodiscard]] double seconds() const {
    const auto layers = result_.totals.layer_ns.flat();
    return 1e-9 * static_cast<double>(std::accumulate(layers.begin(), layers.end(), Nanoseconds{}));
  }

 private:
  static const study::ModelShape& model() {
    for (const auto& shape : study::model_presets()) {
      if (shape.preset == "deepseek-v3") {
        return shape;
      }
    }
    std::abort();
  }

  run::ModelBackend backend_;
  std::unique_ptr<workload::Routing> routing_;
  workload::Loads loads_;
  study::PhaseSpec spec_;
  placement::SpeedModels speeds_;
  placement::Placement placement_;
  timeline::FleetState state_;
  run::PhaseResult result_;
  record::CellSummary cell_;
};

/// StudyWriter::write of a phase with and without timelines, and its file's bytes.
void write_phase(benchmark::State& state) {
  const auto world = mpi::Communicator::world();
  const bool with_timelines = state.range(2) == 1;
  Phase phase(world, static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  const fs::path folder = fs::temp_directory_path() / "moevar-record-bench";
  if (world.is_root()) {
    fs::remove_all(folder);
  }
  world.barrier();
  {
    record::StudyWriter writer(world, folder,
                               {.study_name = "record_bench",
                                .study_toml = "",
                                .moevar_version = "",
                                .device_kind = "model",
                                .planned_phases = kTimes});
    int index = 0;
    while (state.KeepRunning()) {
      phase.write(writer, index++, with_timelines);
    }
  }
  if (world.is_root()) {
    state.counters["bytes/device-layer-step"] =
        static_cast<double>(fs::file_size(folder / "phases" / "0001.h5")) /
        phase.device_layer_steps();
    fs::remove_all(folder);
  }
  state.counters["phase_s"] = phase.seconds();
  state.counters["device-layer-steps/s"] =
      benchmark::Counter(phase.device_layer_steps(), benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(write_phase)
    ->ArgNames({"devices", "steps", "timelines"})
    ->Args({64, 64, 1})
    ->Args({64, 64, 0})
    ->Args({8, 64, 1})
    ->Iterations(kTimes)
    ->MeasureProcessCPUTime()
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

int main(int argc, char** argv) {
  const mpi::Session session(&argc, &argv);
  if (!mpi::Communicator::world().is_root() && std::freopen("/dev/null", "w", stdout) == nullptr) {
    return EXIT_FAILURE;
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return EXIT_SUCCESS;
}
