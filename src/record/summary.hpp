#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "placement/placement.hpp"
#include "record/serving_record.hpp"
#include "study/plan.hpp"
#include "timeline/timeline.hpp"

/// summary.json: what README.md's contract says of it.
namespace moevar::record {

/// One cell: its factors and what came of it.
struct CellSummary {
  int phase = 0;  ///< the cell's place in the plan: /phases/NNNN
  int devices = 0;
  std::optional<double> power_cap_w;
  std::string heat;
  std::string workload;
  std::string policy;
  int repeat = 0;
  study::Scaling scaling = study::Scaling::strong;
  int experts = 0;
  bool even_load = false;
  bool equal_fleet = false;
  std::size_t steps = 0;
  std::string stop_reason = "fixed";
  std::string overlap = "none";   ///< of exchange and experts: "none" | "two-batch"
  std::string caps;               ///< who sets the caps, as FleetState has it
  std::optional<bool> caps_hold;  ///< every device enforces what was asked for; none: nothing was
  std::optional<bool> steady;     ///< every device was in thermal steady state; none: not observed
  std::string solved_because;     ///< why the phase's placement is this one

  struct {
    double mean = 0, median = 0, p90 = 0, p99 = 0;
    std::size_t n = 0;
  } layer_us;
  double straggler_tax = 0;   ///< Σ layer time ÷ Σ mean busy time over devices − 1
  double load_imbalance = 0;  ///< mean over steps and layers of busiest device ÷ mean over devices
  double idle_fraction = 0;   ///< Σ wait ÷ (devices × Σ layer time)
  struct {
    double median = 0, p90 = 0;
  } gap_us;  ///< slowest minus fastest device's expert time
  double solve_ms = 0;
  std::int64_t moved_experts = 0;
  double migrate_ms = 0;
  double predicted_layer_us = 0;  ///< mean over layers of the placement's predicted expert time
  double lower_bound_layer_us = 0;
  std::optional<ServingSummary> serving;  ///< where the phase served requests
};

/// Statistics of one phase. Quantiles are nearest-rank. Pure.
CellSummary summarise(const study::PhaseSpec& spec, const std::string& workload,
                      const timeline::FleetState& state, const timeline::LayerTotals& totals,
                      const placement::Placement& placement, const std::string& solved_because,
                      std::int64_t moved_experts, double migrate_ms);

/// A cell as summary.json has it, on one line.
std::string to_json_text(const CellSummary& cell);
/// What to_json_text wrote: an equal cell. Throws InputError where it is something else.
CellSummary cell_from_json(std::string_view text);

struct Summary {
  std::string study;
  std::string device;  ///< "model" | "cpu" | "cuda"
  bool complete = false;
  std::vector<CellSummary> cells;
};

/// What write_summary wrote. Throws InputError where it is something else.
Summary summary_from_json(std::string_view text);

/// Writes summary.json whole or not at all (temporary name, fsync, rename). Throws
/// EnvironmentError.
void write_summary(const std::filesystem::path& directory, const Summary& summary);

/// The terminal table: one row per cell averaged over repeats, policies of a condition side by
/// side.
std::string render_table(const Summary& summary);

}  // namespace moevar::record
