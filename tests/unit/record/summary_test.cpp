#include "record/summary.hpp"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace moevar::record {
namespace {

study::PhaseSpec spec_of(int devices, const std::string& policy, int repeat = 0) {
  study::PhaseSpec spec;
  spec.devices = devices;
  spec.policy = policy;
  spec.repeat = repeat;
  return spec;
}

timeline::FleetState state_of() {
  timeline::FleetState state;
  state.caps = "set";
  state.sensors = "nvml";
  state.window_s = 60.0;
  timeline::DeviceState device;
  device.cap.requested_w = 500.0;
  device.cap.enforced_w = 500.3;
  state.devices.assign(2, device);
  return state;
}

placement::Placement placement_of() {
  placement::Placement placement;
  placement.predicted_us = {10.0, 30.0};
  placement.lower_bound_us = {8.0, 12.0};
  placement.solve_ms = 2.5;
  return placement;
}

/// Two devices, one step, two layers. Device 0 is busy in layer 0, device 1 in layer 1: over layers
/// both devices have equal work, so whoever averages over layers first sees no imbalance at all.
timeline::LayerTotals crossed_totals() {
  timeline::LayerTotals totals(1, 2);
  totals.devices = 2;
  for (const std::size_t layer : {0U, 1U}) {
    totals.layer_ns(0, layer) = 400;
    totals.busy_sum_ns(0, layer) = 400 + 200;
    totals.wait_sum_ns(0, layer) = 200;
    totals.expert_max_ns(0, layer) = 300;
    totals.expert_min_ns(0, layer) = 100;
    totals.tokens_max(0, layer) = 30;
    totals.tokens_sum(0, layer) = 40;
  }
  return totals;
}

TEST(Summarise, IsDefinedOverDevicesNotOverLayers) {
  const auto cell = summarise(spec_of(2, "vibe"), "synthetic", state_of(), crossed_totals(),
                              placement_of(), "first", 3, 1.5);
  EXPECT_DOUBLE_EQ(cell.load_imbalance, 1.5);
  EXPECT_DOUBLE_EQ(cell.straggler_tax, 800.0 * 2 / 1200 - 1);
  EXPECT_DOUBLE_EQ(cell.idle_fraction, 400.0 / (2 * 800));
  EXPECT_DOUBLE_EQ(cell.gap_us.median, 0.2);
}

TEST(Summarise, TaxIsARatioOfSumsAndImbalanceAMeanOfRatios) {
  timeline::LayerTotals totals(2, 1);
  totals.devices = 4;
  totals.layer_ns.flat()[0] = 1000;
  totals.layer_ns.flat()[1] = 3000;
  totals.busy_sum_ns.flat()[0] = 2000;   // alone: a tax of 1
  totals.busy_sum_ns.flat()[1] = 12000;  // alone: none
  totals.tokens_max.flat()[0] = 100;
  totals.tokens_sum.flat()[0] = 100;  // alone: 4
  totals.tokens_max.flat()[1] = 1000;
  totals.tokens_sum.flat()[1] = 4000;  // alone: 1
  const auto cell =
      summarise(spec_of(4, "vibe"), "counts", state_of(), totals, placement_of(), "first", 0, 0.0);
  EXPECT_DOUBLE_EQ(cell.straggler_tax, 16000.0 / 14000 - 1);
  EXPECT_DOUBLE_EQ(cell.load_imbalance, 2.5);
  EXPECT_DOUBLE_EQ(cell.layer_us.mean, 2.0);
  EXPECT_DOUBLE_EQ(cell.layer_us.median, 1.0) << "nearest rank: the first of two";
  EXPECT_DOUBLE_EQ(cell.layer_us.p90, 3.0);
  EXPECT_EQ(cell.layer_us.n, 2U);
}

TEST(Summarise, CarriesFactorsAndPlacement) {
  auto spec = spec_of(2, "eplb", 3);
  spec.condition = {450.0, study::Heat::ambient};
  const auto cell =
      summarise(spec, "tokens", state_of(), crossed_totals(), placement_of(), "first", 7, 1.5);
  EXPECT_EQ(cell.devices, 2);
  EXPECT_EQ(cell.power_cap_w, 450.0);
  EXPECT_EQ(cell.heat, "ambient");
  EXPECT_EQ(cell.workload, "tokens");
  EXPECT_EQ(cell.policy, "eplb");
  EXPECT_EQ(cell.repeat, 3);
  EXPECT_EQ(cell.moved_experts, 7);
  EXPECT_EQ(cell.migrate_ms, 1.5);
  EXPECT_EQ(cell.solve_ms, 2.5);
  EXPECT_EQ(cell.predicted_layer_us, 20.0);
  EXPECT_EQ(cell.lower_bound_layer_us, 10.0);
}

TEST(Summarise, SaysWhetherCapAndHeatCanBeBelieved) {
  const auto cell_of = [](const timeline::FleetState& state) {
    return summarise(spec_of(2, "eplb"), "counts", state, crossed_totals(), placement_of(), "first",
                     0, 0.0);
  };
  auto state = state_of();
  state.devices[1].cap.enforced_w = 450.0;
  state.devices[0].steady = false;
  EXPECT_EQ(cell_of(state).caps_hold, false);
  EXPECT_EQ(cell_of(state).steady, false);
  Summary summary{"s", "cuda", true, {cell_of(state)}};
  EXPECT_NE(render_table(summary).find("CAP NOT ENFORCED · not steady"), std::string::npos);
  state.caps = "observe";
  summary.cells = {cell_of(state)};
  EXPECT_NE(render_table(summary).find("cap not set, only observed"), std::string::npos);
  state.devices[1].cap.requested_w = timeline::kUnknown;
  EXPECT_EQ(cell_of(state).caps_hold, std::nullopt) << "nothing was asked for";
  state.window_s = timeline::kUnknown;
  EXPECT_EQ(cell_of(state).steady, std::nullopt) << "nobody looked";
}

TEST(Summarise, NothingMeasuredIsNoNumber) {
  const timeline::LayerTotals none(0, 0);
  const auto cell = summarise(spec_of(2, "eplb"), "counts", state_of(), none, {}, "first", 0, 0.0);
  EXPECT_EQ(cell.layer_us.n, 0U);
  EXPECT_TRUE(std::isnan(cell.layer_us.median));
  EXPECT_TRUE(std::isnan(cell.straggler_tax));
  EXPECT_TRUE(std::isnan(cell.load_imbalance));
  EXPECT_TRUE(std::isnan(cell.predicted_layer_us));
}

class SummaryFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "moevar-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(SummaryFile, HoldsTheContractsFieldsAndNeverNan) {
  auto cell =
      summarise(spec_of(2, "vibe"), "synthetic", state_of(), crossed_totals(), {}, "first", 3, 1.5);
  auto capped = cell;
  capped.power_cap_w = 450.0;
  write_summary(folder_, {"a \"study\"", "model", true, {cell, capped}});
  std::ifstream file(folder_ / "summary.json");
  const auto json = nlohmann::json::parse(file);
  EXPECT_EQ(json.at("schema"), 1);
  EXPECT_EQ(json.at("study"), "a \"study\"");
  EXPECT_EQ(json.at("device"), "model");
  EXPECT_EQ(json.at("complete"), true);
  ASSERT_EQ(json.at("cells").size(), 2U);
  const auto& first = json["cells"][0];
  EXPECT_EQ(first.size(), 28U);
  EXPECT_EQ(first.at("scaling"), "strong");
  EXPECT_EQ(first.at("experts"), 0);
  EXPECT_EQ(first.at("even_load"), false);
  EXPECT_EQ(first.at("equal_fleet"), false);
  EXPECT_EQ(first.at("stop_reason"), "fixed");
  EXPECT_EQ(first.at("overlap"), "none");
  EXPECT_EQ(first.at("caps"), "set");
  EXPECT_EQ(first.at("caps_hold"), true) << "0.3 W of 500 is rounding";
  EXPECT_EQ(first.at("steady"), true);
  EXPECT_EQ(first.at("solved_because"), "first");
  EXPECT_EQ(first.at("phase"), 0);
  EXPECT_TRUE(first.at("power_cap_w").is_null());
  EXPECT_EQ(json["cells"][1].at("power_cap_w"), 450.0);
  EXPECT_TRUE(first.at("predicted_layer_us").is_null()) << "a placement without layers";
  EXPECT_EQ(first.at("layer_us").at("n"), 2);
  EXPECT_EQ(first.at("layer_us").at("p99"), 0.4);
  EXPECT_EQ(first.at("load_imbalance"), 1.5);
  EXPECT_EQ(first.at("moved_experts"), 3);
}

TEST_F(SummaryFile, SaysWhereItCannotWrite) {
  try {
    write_summary(folder_ / "absent", {});
    FAIL() << "a folder that is not there";
  } catch (const EnvironmentError& error) {
    EXPECT_NE(std::string(error.what()).find("absent/summary.json"), std::string::npos)
        << error.what();
  }
}

CellSummary cell_of(double mean_us, const std::string& policy, int repeat) {
  CellSummary cell;
  cell.devices = 8;
  cell.heat = "soaked";
  cell.workload = "synthetic";
  cell.policy = policy;
  cell.repeat = repeat;
  cell.layer_us = {mean_us, mean_us, mean_us * 1.1, mean_us * 1.2, 928};
  cell.straggler_tax = 0.125;
  cell.load_imbalance = 1.5;
  cell.idle_fraction = 0.1;
  cell.gap_us = {50.0, 60.0};
  return cell;
}

/// The line that begins with `text`.
std::string line_with(const std::string& table, const std::string& text) {
  const auto found = table.find("\n" + text);
  if (found == std::string::npos) {
    return "";
  }
  const auto begin = found + 1;
  return table.substr(begin, table.find('\n', begin) - begin);
}

TEST(Table, AveragesRepeatsAndComparesWithTheBase) {
  const Summary summary{"s",
                        "model",
                        true,
                        {cell_of(900.0, "vibe", 0), cell_of(1000.0, "contiguous", 0),
                         cell_of(700.0, "vibe", 1), cell_of(1000.0, "contiguous", 1)}};
  const auto table = render_table(summary);
  EXPECT_NE(table.find("8 devices · own limit · soaked · synthetic · mean of 2 repeats"),
            std::string::npos)
      << table;
  EXPECT_LT(table.find("  contiguous"), table.find("  vibe")) << "the base comes first";
  const auto row = line_with(table, "  vibe");
  EXPECT_NE(row.find("12.5     1.500   10.0   800.0   880.0   960.0    50.0"), std::string::npos)
      << row;
  EXPECT_NE(row.find("-20.0 %"), std::string::npos) << row;
  EXPECT_NE(table.find("p50 µs"), std::string::npos);
}

TEST(Table, OneUnitForAllAndDashesForNoNumber) {
  auto empty = cell_of(std::numeric_limits<double>::quiet_NaN(), "eplb", 0);
  empty.power_cap_w = 300.0;
  const Summary summary{"s", "cpu", false, {cell_of(20000.0, "vibe", 0), empty}};
  const auto table = render_table(summary);
  EXPECT_NE(table.find("p50 ms"), std::string::npos) << table;
  EXPECT_EQ(table.find("µs"), std::string::npos) << table;
  EXPECT_NE(line_with(table, "  vibe").find("20.00"), std::string::npos) << table;
  EXPECT_NE(line_with(table, "  eplb").find("–"), std::string::npos) << table;
  EXPECT_EQ(table.find("nan"), std::string::npos) << table;
  EXPECT_LT(table.find("own limit"), table.find("300 W")) << "from the own limit down";
  EXPECT_NE(table.find("(not complete)"), std::string::npos);
}

TEST(Table, OfNothingSaysSo) {
  EXPECT_EQ(render_table({"s", "cpu", false, {}}), "s: no phase was finished\n");
}

TEST(Table, FitsHundredColumns) {
  auto wide = cell_of(9999.4 / 1.2, "round_robin", 0);
  wide.moved_experts = 14848;
  wide.solve_ms = 12345.6;
  const auto table = render_table({"s", "model", true, {cell_of(812.3, "contiguous", 0), wide}});
  std::size_t columns = 0;
  for (const char c : table) {
    const auto byte = static_cast<unsigned char>(c);
    const bool continues = (byte & 0xC0U) == 0x80U;  // of a UTF-8 character
    columns = c == '\n' ? 0 : columns + (continues ? 0 : 1);
    ASSERT_LE(columns, 100U) << table;
  }
}

}  // namespace
}  // namespace moevar::record
