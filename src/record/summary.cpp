#include "record/summary.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "stats/quantiles.hpp"
#include "system/files.hpp"

namespace moevar::record {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double sum_of(const Matrix<Nanoseconds>& values) {
  const auto flat = values.flat();
  return static_cast<double>(std::reduce(flat.begin(), flat.end(), std::int64_t{0}));
}

std::vector<std::int64_t> to_vector(std::span<const std::int64_t> values) {
  return {values.begin(), values.end()};
}

/// Mean over the layer calls that had tokens.
double load_imbalance(const timeline::LayerTotals& totals) {
  const auto busiest = totals.tokens_max.flat();
  const auto all = totals.tokens_sum.flat();
  std::vector<double> ratios;
  ratios.reserve(all.size());
  for (std::size_t call = 0; call < all.size(); ++call) {
    if (all[call] > 0) {
      ratios.push_back(static_cast<double>(busiest[call]) * totals.devices /
                       static_cast<double>(all[call]));
    }
  }
  return stats::mean(ratios).value_or(kNone);
}

std::vector<Nanoseconds> gaps_of(const timeline::LayerTotals& totals) {
  auto gaps = to_vector(totals.expert_max_ns.flat());
  const auto fastest = totals.expert_min_ns.flat();
  for (std::size_t call = 0; call < gaps.size(); ++call) {
    gaps[call] -= fastest[call];
  }
  return gaps;
}

/// A quotient of sums; none where nothing was summed.
double ratio(double numerator, double denominator) {
  return denominator > 0.0 ? numerator / denominator : kNone;
}

template <class T>
nlohmann::ordered_json or_null(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

/// Whether every device enforces what was asked of it; nothing where nothing was.
std::optional<bool> caps_hold(const timeline::FleetState& state) {
  bool hold = true;
  for (const auto& device : state.devices) {
    if (std::isnan(device.cap.requested_w)) {
      return std::nullopt;
    }
    hold = hold && std::abs(device.cap.requested_w - device.cap.enforced_w) <= timeline::kSameCapW;
  }
  return hold;
}

nlohmann::ordered_json to_json(const CellSummary& cell) {
  nlohmann::ordered_json json;
  json["devices"] = cell.devices;
  json["power_cap_w"] = or_null(cell.power_cap_w);
  json["heat"] = cell.heat;
  json["workload"] = cell.workload;
  json["policy"] = cell.policy;
  json["phase"] = cell.phase;
  json["repeat"] = cell.repeat;
  json["scaling"] = study::to_string(cell.scaling);
  json["experts"] = cell.experts;
  json["even_load"] = cell.even_load;
  json["equal_fleet"] = cell.equal_fleet;
  json["steps"] = cell.steps;
  json["stop_reason"] = cell.stop_reason;
  json["layer_us"] = {{"mean", cell.layer_us.mean},
                      {"median", cell.layer_us.median},
                      {"p90", cell.layer_us.p90},
                      {"p99", cell.layer_us.p99},
                      {"n", cell.layer_us.n}};
  json["straggler_tax"] = cell.straggler_tax;
  json["load_imbalance"] = cell.load_imbalance;
  json["idle_fraction"] = cell.idle_fraction;
  json["gap_us"] = {{"median", cell.gap_us.median}, {"p90", cell.gap_us.p90}};
  json["caps"] = cell.caps;
  json["caps_hold"] = or_null(cell.caps_hold);
  json["steady"] = or_null(cell.steady);
  json["solved_because"] = cell.solved_because;
  json["solve_ms"] = cell.solve_ms;
  json["moved_experts"] = cell.moved_experts;
  json["migrate_ms"] = cell.migrate_ms;
  json["predicted_layer_us"] = cell.predicted_layer_us;
  json["lower_bound_layer_us"] = cell.lower_bound_layer_us;
  return json;
}

}  // namespace

CellSummary summarise(const study::PhaseSpec& spec, const std::string& workload,
                      const timeline::FleetState& state, const timeline::LayerTotals& totals,
                      const placement::Placement& placement, const std::string& solved_because,
                      std::int64_t moved_experts, double migrate_ms) {
  CellSummary cell;
  cell.devices = spec.devices;
  cell.power_cap_w = spec.condition.power_cap_w;
  cell.heat = study::to_string(spec.condition.heat);
  cell.workload = workload;
  cell.policy = spec.policy;
  cell.phase = spec.index;
  cell.repeat = spec.repeat;
  cell.scaling = spec.scaling;
  cell.experts = spec.experts;
  cell.even_load = spec.even_load;
  cell.equal_fleet = spec.equal_fleet;
  cell.steps = totals.layer_ns.extent(0);
  cell.solved_because = solved_because;
  cell.caps = state.caps;
  cell.caps_hold = caps_hold(state);
  if (!std::isnan(state.window_s)) {
    cell.steady = std::ranges::all_of(state.devices, &timeline::DeviceState::steady);
  }

  constexpr std::array kLayer{stats::kMedian, stats::kP90, stats::kP99};
  auto layer = stats::quantiles(to_vector(totals.layer_ns.flat()), kLayer);
  auto gap = stats::quantiles(gaps_of(totals), std::array{stats::kMedian, stats::kP90});
  cell.layer_us.n = totals.layer_ns.size();
  if (cell.layer_us.n == 0) {
    cell.layer_us = {kNone, kNone, kNone, kNone, 0};
    cell.gap_us = {kNone, kNone};
  } else {
    cell.layer_us.mean = stats::mean(totals.layer_ns.flat()).value_or(kNone) * 1e-3;
    cell.layer_us.median = ns_to_us(layer[0]);
    cell.layer_us.p90 = ns_to_us(layer[1]);
    cell.layer_us.p99 = ns_to_us(layer[2]);
    cell.gap_us = {ns_to_us(gap[0]), ns_to_us(gap[1])};
  }

  const double device_time = sum_of(totals.layer_ns) * totals.devices;
  cell.straggler_tax = ratio(device_time, sum_of(totals.busy_sum_ns)) - 1.0;
  cell.load_imbalance = load_imbalance(totals);
  cell.idle_fraction = ratio(sum_of(totals.wait_sum_ns), device_time);
  cell.solve_ms = placement.solve_ms;
  cell.moved_experts = moved_experts;
  cell.migrate_ms = migrate_ms;
  cell.predicted_layer_us = stats::mean(placement.predicted_us).value_or(kNone);
  cell.lower_bound_layer_us = stats::mean(placement.lower_bound_us).value_or(kNone);
  return cell;
}

void write_summary(const std::filesystem::path& directory, const Summary& summary) {
  nlohmann::ordered_json json;
  json["schema"] = 1;
  json["study"] = summary.study;
  json["complete"] = summary.complete;
  json["device"] = summary.device;
  json["cells"] = nlohmann::ordered_json::array();
  for (const auto& cell : summary.cells) {
    json["cells"].push_back(to_json(cell));
  }
  // dump writes null for what is no finite number
  constexpr int kIndent = 2;
  files::write_text(
      directory / "summary.json",
      json.dump(kIndent, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace moevar::record
