#include "run/join.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace moevar::run {

namespace {

/// Appends blocks along the axis of steps, [devices][steps][...]. `part` picks the array.
template <class Array, class Part>
Array join_steps(const std::vector<PhaseResult>& blocks, const Part& part) {
  auto shape = part(blocks.front()).shape();
  shape[1] = 0;
  for (const auto& block : blocks) {
    shape[1] += part(block).extent(1);
  }
  Array all(shape);
  for (std::size_t d = 0; d < shape[0]; ++d) {
    auto target = all.row(d).begin();
    for (const auto& block : blocks) {
      target = std::ranges::copy(part(block).row(d), target).out;
    }
  }
  return all;
}

/// The same for [steps][layers].
Matrix<std::int64_t> join_calls(const std::vector<PhaseResult>& blocks,
                                Matrix<std::int64_t> timeline::LayerTotals::*part) {
  std::size_t steps = 0;
  for (const auto& block : blocks) {
    steps += (block.totals.*part).extent(0);
  }
  Matrix<std::int64_t> all({steps, (blocks.front().totals.*part).extent(1)});
  auto target = all.flat().begin();
  for (const auto& block : blocks) {
    target = std::ranges::copy((block.totals.*part).flat(), target).out;
  }
  return all;
}

timeline::LayerTotals join_totals(const std::vector<PhaseResult>& blocks) {
  using timeline::LayerTotals;
  LayerTotals all;
  all.devices = blocks.front().totals.devices;
  for (auto part : {&LayerTotals::layer_ns, &LayerTotals::busy_sum_ns, &LayerTotals::wait_sum_ns,
                    &LayerTotals::expert_max_ns, &LayerTotals::expert_min_ns,
                    &LayerTotals::tokens_max, &LayerTotals::tokens_sum}) {
    all.*part = join_calls(blocks, part);
  }
  return all;
}

timeline::Timeline join_timelines(const std::vector<PhaseResult>& blocks) {
  using timeline::Timeline;
  Timeline all;
  all.tokens = join_steps<Tensor<std::uint32_t, 3>>(
      blocks, [](const PhaseResult& block) -> auto& { return block.mine.tokens; });
  for (auto part : {&Timeline::dispatch_ns, &Timeline::expert_ns, &Timeline::arrival_ns,
                    &Timeline::wait_ns, &Timeline::combine_ns}) {
    all.*part = join_steps<Tensor<Nanoseconds, 3>>(
        blocks, [part](const PhaseResult& block) -> auto& { return block.mine.*part; });
  }
  return all;
}

timeline::Telemetry join_telemetry(const std::vector<PhaseResult>& blocks) {
  using timeline::Telemetry;
  Telemetry all;
  for (auto part : {&Telemetry::step_sm_clock_mhz, &Telemetry::step_temperature_c}) {
    all.*part = join_steps<Matrix<double>>(
        blocks, [part](const PhaseResult& block) -> auto& { return block.telemetry.*part; });
  }
  all.step_throttle_reasons = join_steps<Matrix<std::uint32_t>>(
      blocks,
      [](const PhaseResult& block) -> auto& { return block.telemetry.step_throttle_reasons; });
  const auto& first = blocks.front().telemetry;
  all.series.resize(first.series.size());
  all.counted.resize(first.counted.size());
  for (const auto& block : blocks) {
    all.polling_s += block.telemetry.polling_s;
    for (std::size_t d = 0; d < all.series.size(); ++d) {
      const auto& more = block.telemetry.series[d];
      all.series[d].insert(all.series[d].end(), more.begin(), more.end());
    }
    for (std::size_t d = 0; d < all.counted.size(); ++d) {
      all.counted[d] = &block == &blocks.front()
                           ? block.telemetry.counted[d]
                           : timeline::counted_together(all.counted[d], block.telemetry.counted[d]);
    }
  }
  return all;
}

}  // namespace

Nanoseconds end_of(const PhaseResult& block) {
  const auto& timeline = block.mine;
  if (timeline.steps() == 0 || timeline.layers() == 0) {
    return 0;
  }
  const std::size_t step = timeline.steps() - 1;
  const std::size_t layer = timeline.layers() - 1;
  Nanoseconds end = 0;
  for (std::size_t d = 0; d < timeline.devices(); ++d) {
    end = std::max(end, timeline.arrival_ns(d, step, layer) + timeline.wait_ns(d, step, layer) +
                            timeline.combine_ns(d, step, layer));
  }
  return end;
}

PhaseResult join(std::vector<PhaseResult> blocks, std::span<const Nanoseconds> ends_ns) {
  if (blocks.size() == 1) {
    return std::move(blocks.front());
  }
  PhaseResult all;
  Nanoseconds elapsed = 0;
  double stamping_ns = 0.0;
  double layers_ns = 0.0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    auto& block = blocks[i];
    for (auto& arrival : block.mine.arrival_ns.flat()) {
      arrival += elapsed;
    }
    for (auto& series : block.telemetry.series) {
      for (auto& reading : series) {
        reading.time_ns += elapsed;
      }
    }
    elapsed += ends_ns[i];
    all.clock_residual_ns = std::max(all.clock_residual_ns, block.clock_residual_ns);
    all.reference_error = std::max(all.reference_error, block.reference_error);
    all.clock_step_ns = std::max(all.clock_step_ns, block.clock_step_ns);
    const auto layers = block.totals.layer_ns.flat();
    const auto block_ns = std::accumulate(layers.begin(), layers.end(), 0.0);
    stamping_ns += block.stamping_share * block_ns;
    layers_ns += block_ns;
  }
  all.stamping_share = layers_ns > 0.0 ? stamping_ns / layers_ns : 0.0;
  all.mine = join_timelines(blocks);
  all.totals = join_totals(blocks);
  all.telemetry = join_telemetry(blocks);
  return all;
}

}  // namespace moevar::run
