#include "record/serving_table.hpp"

#include <array>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace moevar::record {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Column {
  const char* above;
  const char* below;
  int width;
  int decimals;
  double (*value)(const CellSummary& cell);
};

const serving::Metrics& metrics(const CellSummary& cell) { return cell.serving->metrics; }

constexpr int kPolicyWidth = 14;
/// 85 wide, with the policy 99.
constexpr std::array kColumns{
    Column{"rate/s", "device", 7, 2, [](const CellSummary& c) { return c.serving->rate; }},
    Column{"TTFT ms", "p50", 9, 1,
           [](const CellSummary& c) { return metrics(c).ttft_ms.p50.value; }},
    Column{"TTFT", "p90", 9, 1, [](const CellSummary& c) { return metrics(c).ttft_ms.p90.value; }},
    Column{"TTFT", "p99", 9, 1, [](const CellSummary& c) { return metrics(c).ttft_ms.p99.value; }},
    Column{"TPOT ms", "p50", 9, 1,
           [](const CellSummary& c) {
             return metrics(c).tpot_ms ? metrics(c).tpot_ms->p50.value : kNone;
           }},
    Column{"TPOT", "p90", 7, 1,
           [](const CellSummary& c) {
             return metrics(c).tpot_ms ? metrics(c).tpot_ms->p90.value : kNone;
           }},
    Column{"in SLO", "%", 8, 1,
           [](const CellSummary& c) { return 100.0 * metrics(c).attainment.value; }},
    Column{"goodput", "req/s", 9, 2, [](const CellSummary& c) { return metrics(c).goodput_rps; }},
    Column{"straggler", "tax %", 10, 1,
           [](const CellSummary& c) { return 100.0 * c.straggler_tax; }},
    Column{"moved", "experts", 9, 0, [](const CellSummary& c) {
             double moved = 0.0;
             for (const auto& move : c.serving->rearrangements) {
               moved += static_cast<double>(move.moved_experts);
             }
             return moved;
           }}};

}  // namespace

std::string serving_headings() {
  std::string above(kPolicyWidth, ' ');
  std::string below = fmt::format("{:<{}}", "  policy", kPolicyWidth);
  for (const auto& column : kColumns) {
    above += fmt::format("{:>{}}", column.above, column.width);
    below += fmt::format("{:>{}}", column.below, column.width);
  }
  return above + "\n" + below + "\n";
}

std::string serving_row(const std::string& policy, const std::vector<const CellSummary*>& repeats) {
  std::string line = fmt::format("  {:<{}}", policy, kPolicyWidth - 2);
  for (const auto& column : kColumns) {
    double sum = 0.0;
    for (const auto* cell : repeats) {
      sum += column.value(*cell);
    }
    const double mean = sum / static_cast<double>(repeats.size());
    const int decimals = std::abs(mean) < 10000.0 ? column.decimals : 0;
    line += std::isfinite(mean) ? fmt::format("{:>{}.{}f}", mean, column.width, decimals)
                                : fmt::format("{:>{}}", "–", column.width);
  }
  return line + "\n";
}

std::string serving_legend() {
  return "TTFT: intended arrival to first token.  TPOT: time per further token.  in SLO: requests "
         "within both\nlimits; goodput: those per second.  straggler tax: layer time ÷ mean busy "
         "time over devices − 1.\nmoved: experts, while serving.  Over repeats: means of each "
         "repeat's figure.\n";
}

}  // namespace moevar::record
