#include "example.hpp"

#include <algorithm>
#include <chrono>
#include <limits>

#include <fmt/format.h>

#include "base/random.hpp"

namespace moevar::record::example {

namespace {

constexpr int kSlotsPerDevice = 4;
constexpr std::int64_t kTokensPerDevice = 4096;

timeline::LayerTotals totals_over(const timeline::Timeline& all) {
  timeline::LayerTotals totals(all.steps(), all.layers());
  totals.devices = static_cast<int>(all.devices());
  for (std::size_t s = 0; s < all.steps(); ++s) {
    for (std::size_t l = 0; l < all.layers(); ++l) {
      totals.layer_ns(s, l) = all.dispatch_ns(0, s, l) + all.expert_ns(0, s, l) +
                              all.wait_ns(0, s, l) + all.combine_ns(0, s, l);
      totals.expert_min_ns(s, l) = std::numeric_limits<Nanoseconds>::max();
      for (std::size_t d = 0; d < all.devices(); ++d) {
        totals.busy_sum_ns(s, l) +=
            all.dispatch_ns(d, s, l) + all.expert_ns(d, s, l) + all.combine_ns(d, s, l);
        totals.wait_sum_ns(s, l) += all.wait_ns(d, s, l);
        totals.expert_max_ns(s, l) = std::max(totals.expert_max_ns(s, l), all.expert_ns(d, s, l));
        totals.expert_min_ns(s, l) = std::min(totals.expert_min_ns(s, l), all.expert_ns(d, s, l));
        const std::int64_t tokens = all.tokens(d, s, l);
        totals.tokens_max(s, l) = std::max(totals.tokens_max(s, l), tokens);
        totals.tokens_sum(s, l) += tokens;
      }
    }
  }
  return totals;
}

template <class T>
void take_rows(const Tensor<T, 3>& all, DeviceRange range, Tensor<T, 3>& mine) {
  for (DeviceId d = range.begin; d < range.end; ++d) {
    std::ranges::copy(all.row(d), mine.row(d - range.begin).begin());
  }
}

placement::Placement make_placement(int index, const Size& size) {
  placement::Placement placement;
  placement.policy = index % 2 == 0 ? "contiguous" : "vibe";
  placement.devices = size.devices;
  placement.slots_per_device = kSlotsPerDevice;
  const auto slots = static_cast<std::size_t>(placement.slots());
  placement.expert_of_slot = Matrix<std::int32_t>({size.layers, slots});
  placement.share_of_slot = Matrix<double>({size.layers, slots}, 1.0);
  for (std::size_t l = 0; l < size.layers; ++l) {
    for (std::size_t s = 0; s < slots; ++s) {
      placement.expert_of_slot(l, s) =
          static_cast<std::int32_t>((s + l * static_cast<std::size_t>(index)) % slots);
    }
    placement.predicted_us.push_back(500.0 + static_cast<double>(l));
    placement.lower_bound_us.push_back(450.0 + static_cast<double>(l));
  }
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  placement.solve_ms = static_cast<double>(now.count() % 1000000) * 1e-5;
  return placement;
}

}  // namespace

timeline::Timeline whole_timeline(int index, const Size& size) {
  const auto devices = static_cast<std::size_t>(size.devices);
  timeline::Timeline all(devices, size.steps, size.layers);
  const auto key = RandomKey(71)[static_cast<std::uint64_t>(index)];
  for (std::size_t s = 0; s < size.steps; ++s) {
    Nanoseconds start = 0;
    for (std::size_t l = 0; l < size.layers; ++l) {
      Nanoseconds last = 0;
      for (std::size_t d = 0; d < devices; ++d) {
        const auto draw = key[d][s][l];
        all.tokens(d, s, l) = static_cast<std::uint32_t>(kTokensPerDevice + draw[0].below(2000));
        all.dispatch_ns(d, s, l) = 40000 + static_cast<Nanoseconds>(draw[1].below(5000));
        all.expert_ns(d, s, l) = std::int64_t{all.tokens(d, s, l)} * 120 +
                                 static_cast<Nanoseconds>(draw[2].below(30000));
        all.arrival_ns(d, s, l) = start + all.dispatch_ns(d, s, l) + all.expert_ns(d, s, l);
        all.combine_ns(d, s, l) = 55000;
        last = std::max(last, all.arrival_ns(d, s, l));
      }
      for (std::size_t d = 0; d < devices; ++d) {
        all.wait_ns(d, s, l) = last - all.arrival_ns(d, s, l);
      }
      start = last + 55000;
    }
  }
  return all;
}

Phase make_phase(const mpi::Communicator& comm, int index, const Size& size) {
  Phase phase;
  phase.spec.index = index;
  phase.spec.devices = size.devices;
  phase.spec.experts = 1 << 20;
  phase.spec.repeat = index / 4;
  if (index % 4 >= 2) {
    phase.spec.condition.power_cap_w = 450.0;
  }
  phase.range = block_of(comm.rank(), comm.size(), size.devices);
  const auto all = whole_timeline(index, size);
  phase.totals = totals_over(all);
  phase.mine =
      timeline::Timeline(static_cast<std::size_t>(phase.range.size()), size.steps, size.layers);
  take_rows(all.tokens, phase.range, phase.mine.tokens);
  take_rows(all.dispatch_ns, phase.range, phase.mine.dispatch_ns);
  take_rows(all.expert_ns, phase.range, phase.mine.expert_ns);
  take_rows(all.arrival_ns, phase.range, phase.mine.arrival_ns);
  take_rows(all.wait_ns, phase.range, phase.mine.wait_ns);
  take_rows(all.combine_ns, phase.range, phase.mine.combine_ns);
  for (int d = 0; d < size.devices; ++d) {
    int owner = 0;
    while (!block_of(owner, comm.size(), size.devices).contains(d)) {
      ++owner;
    }
    phase.fleet.push_back({d, "model", fmt::format("model-h100-sxm5-1-{}", d),
                           "h100-sxm5 (modelled)", fmt::format("node{}", d / 8), d / 8, d % 8,
                           owner});
    timeline::DeviceState state;
    state.cap.requested_w =
        phase.spec.condition.power_cap_w.value_or(std::numeric_limits<double>::quiet_NaN());
    state.cap.enforced_w = 700.0;
    state.sm_clock_mhz = 1700.0 + d;
    state.power_w = 650.0 + d;
    state.temperature_c = 60.0 + d;
    state.throttle_reasons = (std::uint64_t{1} << 40U) + static_cast<std::uint64_t>(d);
    state.steady = d % 2 == 0;
    phase.state.devices.push_back(state);
    // a device with one point fewer than the others: the shorter curve is padded
    std::vector<double> tokens{256.0, 1024.0, 4096.0};
    std::vector<double> time_us{40.0 + d, 130.0 + d, 500.0 + d};
    if (d == 1) {
      tokens.pop_back();
      time_us.pop_back();
    }
    phase.speeds.emplace_back(tokens, time_us);
  }
  phase.placement = make_placement(index, size);
  phase.spec.policy = phase.placement.policy;
  phase.cell = summary_of(phase);
  phase.to_resume = fmt::format("what phase {} leaves", index);
  return phase;
}

PhaseRecord Phase::record() const {
  return {.spec = spec,
          .workload = "synthetic",
          .heat = "soaked",
          .first_step = 100 + spec.index,
          .tokens_per_step = kTokensPerDevice * spec.devices,
          .timer = "virtual",
          .sync = "none: one virtual clock",
          .clock_residual_ns = 3,
          .reference_error = 1e-6,
          .clock_step_ns = 32,
          .stamping_share = 1e-4,
          .moved_experts = 11 + spec.index,
          .moved_bytes = std::int64_t{1} << 33U,
          .migrate_ms = 1.25,
          .fleet = fleet,
          .range = range,
          .mine = mine,
          .totals = totals,
          .state = state,
          .telemetry = telemetry,
          .placement = placement,
          .speeds = speeds,
          .speeds_from = speeds_from,
          .solved_because = "between-phases",
          .per_step = spec.index % 2 == 1,
          .cell = cell,
          .to_resume = to_resume};
}

StudyHeader header(int planned_phases) {
  StudyHeader header{.study_name = "example µ",
                     .study_toml = "[study]\nname = \"example µ\"\n",
                     .moevar_version = "0.1.0",
                     .device_kind = "model",
                     .planned_phases = planned_phases};
  header.manifest.study_toml = header.study_toml;
  return header;
}

CellSummary summary_of(const Phase& phase) {
  const auto record = phase.record();
  return summarise(record.spec, record.workload, record.state, record.totals, record.placement,
                   record.solved_because, record.moved_experts, record.migrate_ms);
}

}  // namespace moevar::record::example
