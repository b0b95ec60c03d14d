#include "timeline/timeline.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "system/mpi.hpp"

namespace moevar::timeline {

Timeline::Timeline(std::size_t devices, std::size_t steps, std::size_t layers)
    : tokens({devices, steps, layers}),
      dispatch_ns({devices, steps, layers}),
      expert_ns({devices, steps, layers}),
      arrival_ns({devices, steps, layers}),
      wait_ns({devices, steps, layers}),
      combine_ns({devices, steps, layers}) {}

LayerTotals::LayerTotals(std::size_t steps, std::size_t layers)
    : layer_ns({steps, layers}),
      busy_sum_ns({steps, layers}),
      wait_sum_ns({steps, layers}),
      expert_max_ns({steps, layers}),
      expert_min_ns({steps, layers}),
      tokens_max({steps, layers}),
      tokens_sum({steps, layers}) {}

LayerTotals totals_of(const Timeline& part) {
  LayerTotals totals(part.steps(), part.layers());
  totals.devices = static_cast<int>(part.devices());
  const std::size_t calls = part.steps() * part.layers();
  const auto layer = totals.layer_ns.flat();
  const auto busy_sum = totals.busy_sum_ns.flat();
  const auto wait_sum = totals.wait_sum_ns.flat();
  const auto expert_max = totals.expert_max_ns.flat();
  const auto expert_min = totals.expert_min_ns.flat();
  const auto tokens_max = totals.tokens_max.flat();
  const auto tokens_sum = totals.tokens_sum.flat();
  std::ranges::fill(expert_min, std::numeric_limits<Nanoseconds>::max());
  for (std::size_t device = 0; device < part.devices(); ++device) {
    const auto tokens = part.tokens.row(device);
    const auto dispatch = part.dispatch_ns.row(device);
    const auto expert = part.expert_ns.row(device);
    const auto wait = part.wait_ns.row(device);
    const auto combine = part.combine_ns.row(device);
    for (std::size_t i = 0; i < calls; ++i) {
      const Nanoseconds busy = dispatch[i] + expert[i] + combine[i];
      const std::int64_t count = tokens[i];
      layer[i] = std::max(layer[i], busy + wait[i]);
      busy_sum[i] += busy;
      wait_sum[i] += wait[i];
      expert_max[i] = std::max(expert_max[i], expert[i]);
      expert_min[i] = std::min(expert_min[i], expert[i]);
      tokens_max[i] = std::max(tokens_max[i], count);
      tokens_sum[i] += count;
    }
  }
  return totals;
}

namespace {

using Fields = std::vector<std::span<std::int64_t>>;

/// Several arrays of the same length as one, so that they are reduced in one call.
std::vector<std::int64_t> joined(const Fields& fields) {
  std::vector<std::int64_t> all;
  for (const auto& field : fields) {
    all.insert(all.end(), field.begin(), field.end());
  }
  return all;
}

void split(std::span<const std::int64_t> all, const Fields& fields) {
  for (const auto& field : fields) {
    std::ranges::copy(all.first(field.size()), field.begin());
    all = all.subspan(field.size());
  }
}

}  // namespace

LayerTotals reduce_totals(const mpi::Communicator& comm, LayerTotals part) {
  std::int64_t devices = part.devices;
  const Fields sums{std::span(&devices, 1), part.busy_sum_ns.flat(), part.wait_sum_ns.flat(),
                    part.tokens_sum.flat()};
  auto summed = joined(sums);
  comm.all_reduce_sum(summed);
  split(summed, sums);
  part.devices = static_cast<int>(devices);

  const Fields maxima{part.layer_ns.flat(), part.expert_max_ns.flat(), part.tokens_max.flat()};
  auto largest = joined(maxima);
  comm.all_reduce_max(largest);
  split(largest, maxima);

  comm.all_reduce_min(part.expert_min_ns.flat());
  return part;
}

DeviceTotals totals_by_device(const Timeline& timeline) {
  DeviceTotals totals;
  for (auto part : DeviceTotals::kParts) {
    (totals.*part).resize(timeline.devices());
  }
  for (std::size_t d = 0; d < timeline.devices(); ++d) {
    for (std::size_t step = 0; step < timeline.steps(); ++step) {
      for (std::size_t layer = 0; layer < timeline.layers(); ++layer) {
        const auto wait = timeline.wait_ns(d, step, layer);
        totals.tokens_sum[d] += timeline.tokens(d, step, layer);
        totals.busy_sum_ns[d] += timeline.dispatch_ns(d, step, layer) +
                                 timeline.expert_ns(d, step, layer) +
                                 timeline.combine_ns(d, step, layer);
        totals.expert_sum_ns[d] += timeline.expert_ns(d, step, layer);
        totals.wait_sum_ns[d] += wait;
        totals.last_calls[d] += wait == 0 ? 1 : 0;
      }
    }
  }
  return totals;
}

}  // namespace moevar::timeline
