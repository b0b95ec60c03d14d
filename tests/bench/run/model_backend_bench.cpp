#include <cstdint>
#include <numeric>

#include <benchmark/benchmark.h>

#include "base/random.hpp"
#include "run/model_backend.hpp"

namespace {

using namespace moevar;

class NoRouting final : public workload::Routing {
 public:
  workload::RoutingShape shape() const override { return {}; }
  void sample(std::int64_t, std::int64_t, std::span<std::uint32_t>) const override {}
  Matrix<std::int32_t> token_experts(std::int64_t, int, std::int64_t) const override { return {}; }
};

mpi::Session& session() {
  static mpi::Session only(nullptr, nullptr);
  return only;
}

/// Device-layer-steps a second on one core, loads given.
void model_steps(benchmark::State& state) {
  session();
  const auto world = mpi::Communicator::world();
  const auto devices = static_cast<int>(state.range(0));
  const auto slots = static_cast<int>(state.range(1));
  const auto steps = static_cast<std::size_t>(state.range(2));
  constexpr std::size_t kLayers = 58;
  constexpr std::uint64_t kMeanTokens = 1024;
  const int experts = devices * slots;

  placement::Placement placement;
  placement.devices = devices;
  placement.slots_per_device = slots;
  placement.expert_of_slot = Matrix<std::int32_t>({kLayers, static_cast<std::size_t>(experts)});
  placement.share_of_slot = Matrix<double>({kLayers, static_cast<std::size_t>(experts)}, 1.0);
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    const auto row = placement.expert_of_slot.row(layer);
    std::iota(row.begin(), row.end(), 0);
    for (std::size_t slot = row.size() - 1; slot > 0; --slot) {
      std::swap(row[slot], row[RandomKey(2)[layer][slot].below(slot + 1)]);
    }
  }
  workload::Loads loads({steps, kLayers, static_cast<std::size_t>(experts)});
  std::uint64_t i = 0;
  for (auto& count : loads.flat()) {
    count = static_cast<std::uint32_t>(RandomKey(3)[i++].below(2 * kMeanTokens));
  }

  run::ModelBackend backend(world, {}, {"", 7168, 2048, experts, 8, kLayers}, 1, devices, 4096);
  backend.enter({});
  const NoRouting routing;
  int phase = 0;
  while (state.KeepRunning()) {
    auto result = backend.run(
        {phase++, 0, 0, std::int64_t{4096} * devices, routing, loads, std::span(&placement, 1)});
    benchmark::DoNotOptimize(result.totals.layer_ns.flat().data());
  }
  state.counters["device-layer-steps/s"] =
      benchmark::Counter(static_cast<double>(steps * kLayers) * devices,
                         benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(model_steps)
    ->ArgNames({"devices", "slots", "steps"})
    ->Args({256, 1, 64})
    ->Args({8, 32, 64})
    ->Args({4096, 1, 16})
    ->Unit(benchmark::kMillisecond);

}  // namespace
