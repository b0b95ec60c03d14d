#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "record/serving_table.hpp"
#include "record/summary.hpp"

namespace moevar::record {

namespace {

constexpr auto kBasePolicy = "contiguous";
/// Times from here on read better in milliseconds.
constexpr double kMillisecondsFromUs = 10000.0;

/// Widths of the columns, in order; 99 together.
struct Widths {
  int policy = 14, tax = 10, imbalance = 10, idle = 7, time = 8, change = 11, moved = 8, solve = 7;
  [[nodiscard]] int total() const {
    return policy + tax + imbalance + idle + 4 * time + change + moved + solve;
  }
};
constexpr Widths kWidths;

double rate_of(const CellSummary& cell) {
  return cell.serving && !cell.serving->search ? cell.serving->rate : 0.0;
}

/// One condition: what the policies in a block of rows have in common. Sorts by fleet size, then
/// from the own limit down to the lowest.
struct ConditionKey {
  study::Scaling scaling = study::Scaling::strong;
  int devices = 0;
  double minus_cap_w = 0.0;
  std::string heat;
  std::string workload;
  bool even_load = false;
  bool equal_fleet = false;
  double rate = 0.0;  ///< of requests, where it is a factor

  explicit ConditionKey(const CellSummary& cell)
      : scaling(cell.scaling),
        devices(cell.devices),
        minus_cap_w(-cell.power_cap_w.value_or(std::numeric_limits<double>::infinity())),
        heat(cell.heat),
        workload(cell.workload),
        even_load(cell.even_load),
        equal_fleet(cell.equal_fleet),
        rate(rate_of(cell)) {}
  bool operator<(const ConditionKey& other) const {
    return std::tie(scaling, devices, minus_cap_w, heat, workload, even_load, equal_fleet, rate) <
           std::tie(other.scaling, other.devices, other.minus_cap_w, other.heat, other.workload,
                    other.even_load, other.equal_fleet, other.rate);
  }
};

using Cells = std::vector<const CellSummary*>;

template <class Value>
double mean_of(const Cells& repeats, const Value& value) {
  double sum = 0.0;
  for (const auto* cell : repeats) {
    sum += static_cast<double>(value(*cell));
  }
  return sum / static_cast<double>(repeats.size());
}

double layer_mean(const Cells& repeats) {
  return mean_of(repeats, [](const CellSummary& cell) { return cell.layer_us.mean; });
}

/// Right-aligned; a dash where there is no number. Large ones go without decimals.
std::string number(double value, int width, int decimals) {
  decimals = std::abs(value) < 10000.0 ? decimals : 0;
  return std::isfinite(value) ? fmt::format("{:>{}.{}f}", value, width, decimals)
                              : fmt::format("{:>{}}", "–", width);
}

std::string change(double value, double base, int width) {
  const double percent = (value / base - 1.0) * 100.0;
  return std::isfinite(percent) ? fmt::format("{:>{}}", fmt::format("{:+.1f} %", percent), width)
                                : fmt::format("{:>{}}", "–", width);
}

std::string row(const std::string& policy, const Cells& repeats, double base_us, bool is_base,
                double unit_us) {
  const auto& w = kWidths;
  const auto mean = [&](const auto& value) { return mean_of(repeats, value); };
  const auto time = [&](const auto& value) {
    return number(mean(value) / unit_us, w.time, unit_us > 1.0 ? 2 : 1);
  };
  using Cell = CellSummary;
  std::string line = fmt::format("  {:<{}}", policy, w.policy - 2);
  line += number(mean([](const Cell& c) { return c.straggler_tax * 100.0; }), w.tax, 1);
  line += number(mean([](const Cell& c) { return c.load_imbalance; }), w.imbalance, 3);
  line += number(mean([](const Cell& c) { return c.idle_fraction * 100.0; }), w.idle, 1);
  line += time([](const Cell& c) { return c.layer_us.median; });
  line += time([](const Cell& c) { return c.layer_us.p90; });
  line += time([](const Cell& c) { return c.layer_us.p99; });
  line += time([](const Cell& c) { return c.gap_us.median; });
  line += is_base ? fmt::format("{:>{}}", "base", w.change)
                  : change(layer_mean(repeats), base_us, w.change);
  line += number(mean([](const Cell& c) { return c.moved_experts; }), w.moved, 0);
  line += number(mean([](const Cell& c) { return c.solve_ms; }), w.solve, 1);
  return line + "\n";
}

std::string heading(const std::array<std::string, 11>& names) {
  const auto& w = kWidths;
  const std::array<int, 11> widths{w.policy, w.tax,  w.imbalance, w.idle,  w.time, w.time,
                                   w.time,   w.time, w.change,    w.moved, w.solve};
  std::string line = fmt::format("{:<{}}", names[0], widths[0]);
  for (std::size_t column = 1; column < names.size(); ++column) {
    line += fmt::format("{:>{}}", names[column], widths[column]);
  }
  return line + "\n";
}

std::string headings(const std::string& unit, const std::string& base) {
  const auto in_unit = [&](const char* name) { return fmt::format("{} {}", name, unit); };
  return heading({"", "straggler", "load", "idle", "layer", "layer", "layer", "gap", "vs", "moved",
                  "solve"}) +
         heading({"  policy", "tax %", "imbalance", "%", in_unit("p50"), in_unit("p90"),
                  in_unit("p99"), in_unit("p50"), base.substr(0, 10), "experts", "ms"});
}

/// What a reader must know before believing the cap and the heat of a title.
std::string labels(const CellSummary& cell) {
  std::string text;
  if (cell.caps_hold == false) {
    text += cell.caps == "observe" ? " · cap not set, only observed" : " · CAP NOT ENFORCED";
  }
  if (cell.steady == false) {
    text += " · not steady";
  }
  return text;
}

std::string title(const CellSummary& cell) {
  const auto cap = cell.power_cap_w ? fmt::format("{:g} W", *cell.power_cap_w) : "own limit";
  return fmt::format(
      "{} device{} · {} · {} · {}{}{}{}{}{}", cell.devices, cell.devices == 1 ? "" : "s", cap,
      cell.heat, cell.workload,
      cell.scaling == study::Scaling::weak ? fmt::format(" · weak: {} experts", cell.experts) : "",
      rate_of(cell) > 0.0 ? fmt::format(" · {:g} requests/s per device", rate_of(cell)) : "",
      cell.even_load ? " · even load" : "", cell.equal_fleet ? " · equal GPUs" : "", labels(cell));
}

/// Policies in the order in which they appear, the base first.
std::vector<std::string> policies_of(const Summary& summary) {
  std::vector<std::string> policies;
  for (const auto& cell : summary.cells) {
    if (std::ranges::count(policies, cell.policy) == 0) {
      policies.push_back(cell.policy);
    }
  }
  const auto base = std::ranges::find(policies, kBasePolicy);
  if (base != policies.end()) {
    std::rotate(policies.begin(), base, base + 1);
  }
  return policies;
}

std::string rule() {
  std::string line;
  for (int column = 0; column < kWidths.total(); ++column) {
    line += "─";
  }
  return line + "\n";
}

std::string block(const std::map<std::string, Cells>& rows,
                  const std::vector<std::string>& policies, double unit_us) {
  const auto base = rows.find(policies.front());
  const double base_us = base == rows.end() ? std::nan("") : layer_mean(base->second);
  std::size_t fewest = std::numeric_limits<std::size_t>::max();
  std::size_t most = 0;
  for (const auto& [policy, repeats] : rows) {
    fewest = std::min(fewest, repeats.size());
    most = std::max(most, repeats.size());
  }
  std::string text = title(*rows.begin()->second.front());
  if (most > 1) {
    text += fewest == most ? fmt::format(" · mean of {} repeats", most)
                           : fmt::format(" · mean of {} to {} repeats", fewest, most);
  }
  text += "\n";
  for (const auto& policy : policies) {
    const auto found = rows.find(policy);
    if (found != rows.end()) {
      text += found->second.front()->serving
                  ? serving_row(policy, found->second)
                  : row(policy, found->second, base_us, found == base, unit_us);
    }
  }
  return text;
}

}  // namespace

std::string render_table(const Summary& summary) {
  if (summary.cells.empty()) {
    return fmt::format("{}: no phase was finished\n", summary.study);
  }
  std::map<ConditionKey, std::map<std::string, Cells>> conditions;
  double slowest_us = 0.0;
  for (const auto& cell : summary.cells) {
    conditions[ConditionKey(cell)][cell.policy].push_back(&cell);
    slowest_us = std::max(slowest_us, cell.layer_us.p99);
  }
  const bool milliseconds = slowest_us >= kMillisecondsFromUs;
  const double unit_us = milliseconds ? 1000.0 : 1.0;
  const auto policies = policies_of(summary);

  std::string text = fmt::format("{} on {} devices{}\n", summary.study, summary.device,
                                 summary.complete ? "" : " (not complete)");
  const bool serves = summary.cells.front().serving.has_value();
  text += rule();
  text += serves ? serving_headings() : headings(milliseconds ? "ms" : "µs", policies.front());
  text += rule();
  for (const auto& [key, rows] : conditions) {
    text += block(rows, policies, unit_us);
  }
  text += rule();
  if (serves) {
    return text + serving_legend();
  }
  text +=
      "straggler tax: layer time ÷ mean busy time over devices − 1.  load imbalance: busiest "
      "device ÷ mean.\nidle: waiting for the slowest device.  gap: slowest − fastest device's "
      "experts.\nvs: change of the mean layer time.  Over repeats: means of each repeat's "
      "figure.\n";
  return text;
}

}  // namespace moevar::record
