#include <algorithm>
#include <chrono>
#include <numeric>

#include <benchmark/benchmark.h>

#include "base/bfloat16.hpp"
#include "exchange/cuda_copy_engine.hpp"
#include "exchange/device_migration.hpp"
#include "exchange/nccl_exchange.hpp"
#include "exchange/nccl_migration.hpp"
#include "exchange/staged_exchange.hpp"
#include "gpu_lanes.hpp"

/// Bytes a second of dispatch and combine together, and of weights that move, per rank and
/// direction, under mpirun with any number of ranks; one rank measures what goes on between the
/// lanes of a GPU. The slowest rank's wall time counts, from a barrier to the last stream's end.
/// Beside it stand what one stream's copies reach in the same run: within the GPU, and to pinned
/// memory of the host. Rank 0 reports.
namespace {

using namespace moevar;
using exchange::LaneStreams;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::duration<double> kLimit{60.0};
constexpr int kSlots = 8;

enum Path : std::int64_t { staged = 0, over_nccl = 1 };

const mpi::Communicator& world() {
  static const auto only = mpi::Communicator::world();
  return only;
}

std::size_t argument(const benchmark::State& state, std::size_t index) {
  return static_cast<std::size_t>(state.range(index));
}

/// What all benchmarks of a path share; nccl stays empty for the staged one.
struct Setup {
  std::string problem;
  exchange::RankGpu gpu;
  std::unique_ptr<nccl::Communicator> nccl;

  explicit Setup(Path path) : problem(gpu::why_none_visible()) {
    if (!problem.empty()) {
      return;
    }
    gpu = exchange::gpu_of(world());
    cuda::use(gpu.ordinal);
    if (path == over_nccl) {
      problem = exchange::why_no_nccl(world(), gpu).value_or("");
      if (problem.empty()) {
        nccl = std::make_unique<nccl::Communicator>(world(), gpu.uuid, kLimit);
      }
    }
  }
};

/// Seconds from when all ranks begin to when the last one is done.
template <class Work>
double seconds_of(const Work& work) {
  world().barrier();
  const auto start = Clock::now();
  work();
  double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  world().all_reduce_max(std::span(&seconds, 1));
  return seconds;
}

template <class Work>
double best_of_five(const Work& work) {
  double best = seconds_of(work);
  for (int i = 0; i < 4; ++i) {
    best = std::min(best, seconds_of(work));
  }
  return best;
}

/// Copies of so many bytes by one stream of every rank, all ranks together.
void report_copies(benchmark::State& state, std::size_t bytes) {
  const cuda::Stream stream;
  const cuda::DeviceArray<std::byte> from(bytes);
  const cuda::DeviceArray<std::byte> to(bytes);
  const cuda::PinnedArray<std::byte> host(bytes);
  const auto rate = [&](void* target) {
    return static_cast<double>(bytes) / best_of_five([&] {
             cuda::copy_bytes(target, from.data(), bytes, stream);
             stream.synchronise();
           });
  };
  state.counters["copy_B/s"] = rate(to.data());
  state.counters["to_host_B/s"] = rate(host.data());
}

void report(benchmark::State& state, double bytes, double seconds) {
  state.counters["B/s"] = bytes * static_cast<double>(state.iterations()) / seconds;
  state.counters["ranks"] = world().size();
}

/// Every lane sends its tokens' copies to all slots of the fleet evenly.
void rows(benchmark::State& state, Path path) {
  const Setup setup(path);
  if (!setup.problem.empty()) {
    state.SkipWithError(setup.problem.c_str());
    return;
  }
  const std::size_t row_bytes = argument(state, 0) * sizeof(BFloat16);
  const std::size_t lanes = argument(state, 2);
  const std::size_t slots = lanes * static_cast<std::size_t>(world().size() * kSlots);
  const std::size_t lane_rows = argument(state, 1) / slots * slots;
  const exchange::ExchangeShape shape{static_cast<int>(lanes), kSlots, row_bytes,
                                      exchange::Counts::known};
  auto engine = std::make_unique<exchange::CudaCopyEngine>();
  std::unique_ptr<exchange::DeviceExchange> over;
  if (path == over_nccl) {
    over = std::make_unique<exchange::NcclExchange>(world(), *setup.nccl, shape, std::move(engine));
  } else {
    over = std::make_unique<exchange::StagedExchange>(world(), shape, std::move(engine),
                                                      Patience{"this rank", kLimit});
  }
  const auto all_rows = static_cast<std::int64_t>(lanes * lane_rows);
  over->reserve(all_rows, all_rows);
  const LaneStreams streams(lanes, false);
  std::vector<std::int64_t> counts(slots, static_cast<std::int64_t>(lane_rows / slots));
  std::vector<cuda::DeviceArray<std::byte>> memory;
  std::vector<exchange::DispatchLane> out;
  std::vector<exchange::CombineLane> back;
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    auto* sent = memory.emplace_back(lane_rows * row_bytes).data();
    auto* received = memory.emplace_back(lane_rows * row_bytes).data();
    const auto room = static_cast<std::int64_t>(lane_rows);
    out.push_back({sent, counts, counts, received, room, streams.all()[lane]});
    back.push_back({received, sent, streams.all()[lane]});
  }
  const auto round_trip = [&] {
    over->dispatch(out);
    over->combine(back);
    for (const auto* stream : streams.all()) {
      over->wait(*stream);
    }
  };
  round_trip();  // NCCL connects the ranks when they first talk
  double all_seconds = 0.0;
  while (state.KeepRunning()) {
    const double seconds = seconds_of(round_trip);
    all_seconds += seconds;
    state.SetIterationTime(seconds);
  }
  const auto bytes = lanes * lane_rows * row_bytes;
  report(state, 2.0 * static_cast<double>(bytes), all_seconds);
  report_copies(state, bytes);
  state.SetLabel(std::string(over->path()));
}

/// Every device sends one expert's weights to the next one. Arguments: hidden, intermediate, lanes.
void weights(benchmark::State& state, Path path) {
  const Setup setup(path);
  if (!setup.problem.empty()) {
    state.SkipWithError(setup.problem.c_str());
    return;
  }
  const std::size_t bytes = 3 * argument(state, 0) * argument(state, 1) * sizeof(BFloat16);
  const std::size_t lanes = argument(state, 2);
  const int devices = static_cast<int>(lanes) * world().size();
  auto engine = std::make_unique<exchange::CudaCopyEngine>();
  const Patience patience{"this rank", kLimit};
  std::unique_ptr<exchange::DeviceMigration> over;
  if (path == over_nccl) {
    over = std::make_unique<exchange::NcclMigration>(world(), *setup.nccl, bytes, std::move(engine),
                                                     patience);
  } else {
    over = std::make_unique<exchange::StagedMigration>(world(), static_cast<int>(lanes), bytes,
                                                       std::move(engine), patience);
  }
  const LaneStreams streams(lanes, false);
  std::vector<cuda::DeviceArray<std::byte>> memory;
  for (std::size_t i = 0; i < 2 * lanes; ++i) {
    memory.emplace_back(bytes);
  }
  std::vector<exchange::WeightMove> moves(static_cast<std::size_t>(devices));
  for (int device = 0; device < devices; ++device) {
    // pointers of other ranks are never looked at
    auto& move = moves[static_cast<std::size_t>(device)];
    move.from_device = device;
    move.to_device = (device + 1) % devices;
    const auto lane_of = [&](int d) { return static_cast<std::size_t>(d) % lanes; };
    move.source = memory[lane_of(move.from_device)].data();
    move.target = memory[lanes + lane_of(move.to_device)].data();
  }
  const auto move_all = [&] {
    over->move(moves, streams.all());
    for (const auto* stream : streams.all()) {
      stream->synchronise();
    }
  };
  move_all();
  double all_seconds = 0.0;
  while (state.KeepRunning()) {
    const double seconds = seconds_of(move_all);
    all_seconds += seconds;
    state.SetIterationTime(seconds);
  }
  report(state, static_cast<double>(lanes * bytes), all_seconds);
  report_copies(state, lanes * bytes);
  state.SetLabel(std::string(over->path()));
}

void row_shapes(benchmark::internal::Benchmark* b, bool several_lanes) {
  b->ArgNames({"hidden", "rows", "lanes"})->UseManualTime()->Iterations(10);
  for (const std::int64_t lanes : {1, 2, 4}) {
    for (const std::int64_t rows : {256, 4096, 32768}) {
      if (lanes == 1 || several_lanes) {
        b->Args({7168, rows / lanes, lanes});
      }
    }
  }
}

BENCHMARK_CAPTURE(rows, staged, staged)->Apply([](auto* b) { row_shapes(b, true); });
BENCHMARK_CAPTURE(rows, nccl, over_nccl)->Apply([](auto* b) { row_shapes(b, false); });
BENCHMARK_CAPTURE(weights, staged, staged)
    ->ArgNames({"hidden", "intermediate", "lanes"})
    ->ArgsProduct({{7168}, {2048}, {1, 4}})
    ->UseManualTime()
    ->Iterations(10);
BENCHMARK_CAPTURE(weights, nccl, over_nccl)
    ->ArgNames({"hidden", "intermediate", "lanes"})
    ->Args({7168, 2048, 1})
    ->UseManualTime()
    ->Iterations(10);

/// For ranks that only take part.
class Silence : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}
};

}  // namespace

int main(int argc, char** argv) {
  const mpi::Session session(&argc, &argv);
  benchmark::Initialize(&argc, argv);
  Silence silence;
  if (world().is_root()) {
    benchmark::RunSpecifiedBenchmarks();
  } else {
    benchmark::RunSpecifiedBenchmarks(&silence);
  }
  return 0;
}
