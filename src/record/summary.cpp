#include "record/summary.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "base/units.hpp"
#include "record/whole_number.hpp"
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
  json["overlap"] = cell.overlap;
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
  if (cell.serving) {
    json["rate"] = cell.serving->rate;
    json["serving"] = to_json(*cell.serving);
  }
  return json;
}

double number_or_none(const nlohmann::ordered_json& json) {
  return json.is_null() ? kNone : json.get<double>();
}

template <class T>
std::optional<T> value_or_null(const nlohmann::ordered_json& json) {
  return json.is_null() ? std::nullopt : std::optional<T>(json.get<T>());
}

CellSummary from_json(const nlohmann::ordered_json& json) {
  CellSummary cell;
  cell.devices = whole_number<int>(json, "devices");
  cell.power_cap_w = value_or_null<double>(json.at("power_cap_w"));
  json.at("heat").get_to(cell.heat);
  json.at("workload").get_to(cell.workload);
  json.at("policy").get_to(cell.policy);
  cell.phase = whole_number<int>(json, "phase");
  cell.repeat = whole_number<int>(json, "repeat");
  cell.scaling = json.at("scaling").get<std::string>() == study::to_string(study::Scaling::weak)
                     ? study::Scaling::weak
                     : study::Scaling::strong;
  cell.experts = whole_number<int>(json, "experts");
  json.at("even_load").get_to(cell.even_load);
  json.at("equal_fleet").get_to(cell.equal_fleet);
  cell.steps = whole_number<std::size_t>(json, "steps");
  json.at("stop_reason").get_to(cell.stop_reason);
  json.at("overlap").get_to(cell.overlap);
  const auto& layer = json.at("layer_us");
  cell.layer_us = {number_or_none(layer.at("mean")), number_or_none(layer.at("median")),
                   number_or_none(layer.at("p90")), number_or_none(layer.at("p99")),
                   whole_number<std::size_t>(layer, "n")};
  cell.straggler_tax = number_or_none(json.at("straggler_tax"));
  cell.load_imbalance = number_or_none(json.at("load_imbalance"));
  cell.idle_fraction = number_or_none(json.at("idle_fraction"));
  cell.gap_us = {number_or_none(json.at("gap_us").at("median")),
                 number_or_none(json.at("gap_us").at("p90"))};
  json.at("caps").get_to(cell.caps);
  cell.caps_hold = value_or_null<bool>(json.at("caps_hold"));
  cell.steady = value_or_null<bool>(json.at("steady"));
  json.at("solved_because").get_to(cell.solved_because);
  cell.solve_ms = number_or_none(json.at("solve_ms"));
  cell.moved_experts = whole_number<std::int64_t>(json, "moved_experts");
  cell.migrate_ms = number_or_none(json.at("migrate_ms"));
  cell.predicted_layer_us = number_or_none(json.at("predicted_layer_us"));
  cell.lower_bound_layer_us = number_or_none(json.at("lower_bound_layer_us"));
  if (json.contains("serving")) {
    cell.serving = serving_from_json(json.at("serving"));
    cell.serving->rate = number_or_none(json.at("rate"));
  }
  return cell;
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

std::string to_json_text(const CellSummary& cell) {
  return to_json(cell).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

CellSummary cell_from_json(std::string_view text) {
  try {
    return from_json(nlohmann::ordered_json::parse(text));
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format("not a cell of a summary: {}", printable(error.what(), 200)));
  }
}

Summary summary_from_json(std::string_view text) {
  try {
    const auto json = nlohmann::ordered_json::parse(text);
    Summary summary{json.at("study"), json.at("device"), json.at("complete"), {}};
    for (const auto& cell : json.at("cells")) {
      summary.cells.push_back(from_json(cell));
    }
    return summary;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(
        fmt::format("summary.json: not as moevar writes it: {}", printable(error.what(), 200)));
  }
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
