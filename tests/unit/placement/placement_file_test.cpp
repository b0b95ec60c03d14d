#include "placement/placement_file.hpp"

#include <nlohmann/json.hpp>

#include "placement/engine_formats.hpp"
#include "refused.hpp"

namespace moevar::placement {
namespace {

using Row = std::vector<std::int32_t>;

Matrix<std::int32_t> matrix(const std::vector<Row>& rows) {
  Matrix<std::int32_t> all({rows.size(), rows.front().size()});
  for (std::size_t row = 0; row < rows.size(); ++row) {
    std::ranges::copy(rows[row], all.row(row).begin());
  }
  return all;
}

Row row(const Placement& placement, int layer) {
  const auto slots = placement.expert_of_slot.row(layer);
  return {slots.begin(), slots.end()};
}

/// Four experts in six slots on two devices, in layers 3 and 5 of a model of 7 layers; expert 0 and
/// another one have two slots, the first layer's with uneven shares.
PlacementFile example() {
  PlacementFile file;
  file.placement.policy = "minmax";
  file.placement.devices = 2;
  file.placement.slots_per_device = 3;
  file.placement.expert_of_slot = matrix({{0, 1, 2, 3, 0, 1}, {3, 0, 2, 0, 1, 2}});
  file.placement.share_of_slot = Matrix<double>({2, 6}, 1.0);
  file.experts = 4;
  file.placement = with_even_shares(std::move(file.placement), 4);
  file.placement.share_of_slot(0, 0) = 0.1;
  file.placement.share_of_slot(0, 4) = 0.9;
  file.placement.predicted_us = {12.5, 1.0 / 3.0};
  file.placement.lower_bound_us = {12.0, 0.25};
  file.placement.solve_ms = 1.5;
  file.layers = {3, 5};
  file.model_layers = 7;
  file.even_split_us = {13.0, 1.0 / 3.0};
  return file;
}

nlohmann::json example_json() { return nlohmann::json::parse(write_placement(example(), {})); }

void refused(const nlohmann::json& document, const std::vector<std::string>& parts) {
  expect_refused([&] { parse_placement(document.dump(), "p.json", 2); }, parts);
  expect_refused([&] { parse_placement(document.dump(), "p.json", 2); }, {"p.json"});
}

TEST(PlacementFile, ComesBackAsItWas) {
  const auto file = example();
  const auto back = parse_placement(write_placement(file, {}), "p.json", 0);
  EXPECT_EQ(back.placement.policy, "minmax");
  EXPECT_EQ(back.placement.devices, 2);
  EXPECT_EQ(back.placement.slots_per_device, 3);
  EXPECT_EQ(back.placement.expert_of_slot, file.placement.expert_of_slot);
  EXPECT_EQ(back.placement.share_of_slot, file.placement.share_of_slot);
  EXPECT_EQ(back.placement.predicted_us, file.placement.predicted_us);
  EXPECT_EQ(back.placement.lower_bound_us, file.placement.lower_bound_us);
  EXPECT_EQ(back.even_split_us, file.even_split_us);
  EXPECT_EQ(back.layers, file.layers);
  EXPECT_EQ(back.experts, 4);
  EXPECT_EQ(back.model_layers, 7);
}

TEST(PlacementFile, HasTheDocumentedKeys) {
  PlacementOrigin origin;
  origin.loads = "a \"quoted\" name\n.json";
  origin.from = "before.json";
  origin.moved_experts = 3;
  origin.receive_budget = 2;
  const auto json = nlohmann::json::parse(write_placement(example(), origin));
  EXPECT_EQ(json["policy"], "minmax");
  EXPECT_EQ(json["devices"], 2);
  EXPECT_EQ(json["slots_per_device"], 3);
  EXPECT_EQ(json["physical_to_logical_map"][1], nlohmann::json({3, 0, 2, 0, 1, 2}));
  EXPECT_EQ(json["slot_share"][0][4], 0.9);
  EXPECT_EQ(json["predicted_us"].size(), 2U);
  EXPECT_EQ(json["lower_bound_us"][0], 12.0);
  EXPECT_EQ(json["solve_ms"], 1.5);
  EXPECT_EQ(json["redundant_experts"], 2);
  EXPECT_EQ(json["layers"], nlohmann::json({3, 5}));
  EXPECT_EQ(json["loads"], origin.loads);
  EXPECT_EQ(json["moved_experts"], 3);
  EXPECT_EQ(json["receive_budget"], 2);
  EXPECT_TRUE(json["speeds"].is_null());
  EXPECT_TRUE(example_json()["moved_experts"].is_null());
}

TEST(PlacementFile, APathThatIsNoUtf8IsNoObstacle) {
  PlacementOrigin origin;
  origin.loads = "caf\xE9.json";
  EXPECT_TRUE(nlohmann::json::accept(write_placement(example(), origin)));
}

TEST(PlacementFile, WhatIsNotKnownIsLeftOut) {
  auto file = example();
  file.placement.predicted_us.clear();
  file.placement.lower_bound_us.clear();
  file.even_split_us.clear();
  file.layers.clear();
  file.model_layers = 0;
  const auto back = parse_placement(write_placement(file, {}), "p.json", 0);
  EXPECT_EQ(back.placement.expert_of_slot, file.placement.expert_of_slot);
  EXPECT_TRUE(back.layers.empty());
  EXPECT_TRUE(back.placement.predicted_us.empty());
  EXPECT_EQ(back.model_layers, 0);
}

TEST(PlacementFile, NeedsTheContractsKeysAlone) {
  const auto file = parse_placement(R"({"devices": 2, "slots_per_device": 1,
    "physical_to_logical_map": [[1, 0]], "slot_share": [[1, 1]]})",
                                    "p.json", 0);
  EXPECT_EQ(file.experts, 2);
  EXPECT_TRUE(file.layers.empty());
  EXPECT_EQ(row(file.placement, 0), (Row{1, 0}));
}

TEST(PlacementFile, SharesAreEvenWhereThereAreNone) {
  auto json = example_json();
  json.erase("slot_share");
  const auto file = parse_placement(json.dump(), "p.json", 0);
  EXPECT_EQ(file.placement.share_of_slot(0, 0), 0.5);
  EXPECT_EQ(file.placement.share_of_slot(0, 3), 1.0);
}

TEST(PlacementFile, RoundedSharesAreSettled) {
  auto json = example_json();
  json["slot_share"][0][4] = 0.9000004;
  const auto file = parse_placement(json.dump(), "p.json", 0);
  EXPECT_NO_THROW(check_placement(file.placement, 4));
}

TEST(PlacementFile, RefusesWhatIsNoPlacement) {
  for (const char* text : {"{", "{\"physical_to_logical_map\": [[0, 1], [1", "[1, 2"}) {
    expect_refused([&] { parse_placement(text, "p.json", 2); }, {"p.json", "not JSON"});
  }
  for (const char* text : {"hello", "{}", "[[0, 1]]", "device,relative_time\n0,1\n", " "}) {
    expect_refused([&] { parse_placement(text, "p.json", 2); }, {"p.json", ""});
  }
  expect_refused([] { parse_placement("hello", "p.json", 2); },
                 {"moevar place", "SGLang", "vLLM-Ascend", "TensorRT-LLM"});
  expect_refused(
      [] { parse_moevar_placement(R"({"physical_to_logical_map": [[0, 1]]})", "p.json"); },
      {"p.json", "moevar place"});
}

TEST(PlacementFile, RefusesOtherShapes) {
  auto json = example_json();
  json["physical_to_logical_map"][1].erase(5);
  refused(json, {"layer 1", "5 slots", "expected 6"});
  json = example_json();
  json["slots_per_device"] = 2;
  refused(json, {"6 slots a layer", "2 devices × 2 slots"});
  json = example_json();
  json["slot_share"].erase(1);
  refused(json, {"slot_share of 1 layers", "2 × 6"});
  json = example_json();
  json["layers"] = {3};
  refused(json, {"layers of 1 layers", "expected 2"});
  json = example_json();
  json["layers"] = {3, 3};
  refused(json, {"layers has 3 after 3", "rising"});
  json = example_json();
  json["model_layers"] = 5;
  refused(json, {"model_layers is 5", "layer 5"});
  for (const auto& bad : {nlohmann::json(0), nlohmann::json(-1), nlohmann::json("2"),
                          nlohmann::json(1.5), nlohmann::json(1e300), nlohmann::json()}) {
    json = example_json();
    json["devices"] = bad;
    refused(json, {"devices is", "whole number from 1"});
  }
}

TEST(PlacementFile, RefusesExpertsThatAreNotThere) {
  auto json = example_json();
  json["physical_to_logical_map"][1][0] = 4;
  refused(json, {"layer 5", "slot 0 holds expert 4", "0 to 3"});
  json = example_json();
  json["physical_to_logical_map"][1][0] = 2;
  refused(json, {"layer 5", "no slot holds expert 3", "4 experts"});
  json = example_json();
  json["physical_to_logical_map"][0][0] = 2147483646;
  json.erase("experts");
  refused(json, {"layer 3", "slot 0 holds expert 2147483646"});
  for (const auto& bad : {nlohmann::json(-1), nlohmann::json(0.5), nlohmann::json("1")}) {
    json = example_json();
    json["physical_to_logical_map"][1][0] = bad;
    refused(json, {"layer 1, slot 0"});
  }
}

TEST(PlacementFile, RefusesSharesThatDoNotSumToOne) {
  auto json = example_json();
  json["slot_share"][0][4] = 0.8;
  refused(json, {"layer 3", "expert 0 sum to 0.9", "expected 1"});
  json["slot_share"][0][4] = -0.1;
  refused(json, {"layer 0, slot 4", "a share is -0.1"});
}

// ---- the engines' files
PlacementFile there_and_back(const char* format, int devices) {
  auto file = example();
  number_layers(file, {}, {}, "p.json");
  return parse_placement(find_engine_format(format).write(file, "p.json"), "e", devices);
}

TEST(EngineFormats, SglangHasARowForEveryLayerOfTheModel) {
  auto file = example();
  number_layers(file, {}, {}, "p.json");
  const auto json = nlohmann::json::parse(find_engine_format("sglang").write(file, "p.json"));
  EXPECT_EQ(json.size(), 1U);  // further keys would be unknown arguments to SGLang
  const auto& map = json["physical_to_logical_map"];
  ASSERT_EQ(map.size(), 7U);
  for (const std::size_t dense : {0U, 1U, 2U, 4U, 6U}) {
    EXPECT_EQ(map[dense], nlohmann::json({0, 1, 2, 3, 0, 1}));
  }
  EXPECT_EQ(map[3], nlohmann::json({0, 1, 2, 3, 0, 1}));
  EXPECT_EQ(map[5], nlohmann::json({3, 0, 2, 0, 1, 2}));
}

TEST(EngineFormats, VllmCountsMoeLayersAlone) {
  auto file = example();
  number_layers(file, {}, {}, "p.json");
  const auto json = nlohmann::json::parse(find_engine_format("vllm").write(file, "p.json"));
  EXPECT_EQ(json["moe_layer_count"], 2);
  ASSERT_EQ(json["layer_list"].size(), 2U);
  const auto& layer = json["layer_list"][1];
  EXPECT_EQ(layer["layer_id"], 1);
  EXPECT_EQ(layer["device_count"], 2);
  ASSERT_EQ(layer["device_list"].size(), 2U);
  EXPECT_EQ(layer["device_list"][1]["device_id"], 1);
  EXPECT_EQ(layer["device_list"][1]["device_expert"], nlohmann::json({0, 1, 2}));
}

TEST(EngineFormats, VllmCannotHoldAnExpertTwiceOnADevice) {
  auto file = example();
  file.placement.expert_of_slot = matrix({{0, 1, 2, 3, 0, 1}, {3, 0, 0, 2, 1, 2}});
  number_layers(file, {}, {}, "p.json");
  expect_refused([&] { (void)write_vllm(file, "p.json"); },
                 {"p.json, layer 5", "device 0 holds expert 0 twice", "different devices"});
  EXPECT_NO_THROW((void)write_sglang(file, "p.json"));
}

TEST(EngineFormats, TensorrtLlmNumbersLayersAsTheModelDoes) {
  auto file = example();
  number_layers(file, {}, {}, "p.json");
  EXPECT_EQ(find_engine_format("tensorrt-llm").write(file, "p.json"),
            "initial_global_assignments:\n"
            "  3: [0, 1, 2, 3, 0, 1]\n"
            "  5: [3, 0, 2, 0, 1, 2]\n"
            "num_slots: 6\n"
            "layer_updates_per_iter: 0\n");
}

TEST(EngineFormats, ComeBackAsTheyWere) {
  const std::vector<std::int64_t> layers{3, 5};
  for (const auto& format : engine_formats()) {
    const auto file = there_and_back(format.name.data(), 2);
    const auto now = match_placement(file, "e", layers, 7, 4, 2);
    EXPECT_EQ(now.expert_of_slot, example().placement.expert_of_slot) << format.name;
    EXPECT_EQ(now.slots_per_device, 3) << format.name;
    EXPECT_EQ(now.share_of_slot(0, 0), 0.5) << format.name;  // engines split evenly
    EXPECT_EQ(now.share_of_slot(0, 3), 1.0) << format.name;
  }
}

TEST(EngineFormats, MisspeltNamesGetTheNearest) {
  expect_refused([] { find_engine_format("sglan"); }, {"\"sglan\"", "nearest is sglang", "vllm"});
}

TEST(EngineFormats, DenseLayersMoveTheNumbers) {
  auto file = example();
  file.layers = {0, 1};
  file.model_layers = 2;
  number_layers(file, 3, {}, "p.json");
  EXPECT_EQ(file.layers, (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(file.model_layers, 5);
  number_layers(file, 3, 9, "p.json");  // already so
  EXPECT_EQ(file.layers, (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(file.model_layers, 9);
  file.layers.clear();
  file.model_layers = 0;
  number_layers(file, {}, {}, "p.json");
  EXPECT_EQ(file.layers, (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(file.model_layers, 2);
}

TEST(EngineFormats, LayersBeyondTheModelAreRefused) {
  auto file = example();
  expect_refused([&] { number_layers(file, {}, 5, "p.json"); },
                 {"p.json", "layer 5 of a model of 5", "6 to"});
  file.layers = {3, 2000000000};
  file.model_layers = 0;
  expect_refused([&] { number_layers(file, {}, {}, "p.json"); }, {"layer 2000000000"});
}

TEST(EngineFormats, SlotsMustDivideOverTheDevices) {
  const std::string sglang = R"({"physical_to_logical_map": [[0, 1, 2, 3, 0, 1]]})";
  EXPECT_EQ(parse_placement(sglang, "e.json", 3).placement.slots_per_device, 2);
  expect_refused([&] { parse_placement(sglang, "e.json", 4); },
                 {"e.json", "6 slots", "4 devices", "multiple"});
  expect_refused([&] { parse_placement(sglang, "e.json", 0); }, {"e.json", "devices"});
}

TEST(EngineFormats, TensorrtLlmReadsTheYamlThatItsToolsWrite) {
  const auto file = parse_placement(
      "# by hand\n---\nlayer_updates_per_iter: 2  # online\ninitial_global_assignments:\n"
      "  7: [1, 0,\n      2, 0]\n\n  3:\n  - 0\n  - 1 # one\n  - 2\n  - 1\nother:\n  deep: 3\n"
      "num_slots: 4\n",
      "e.yaml", 2);
  EXPECT_EQ(file.layers, (std::vector<std::int64_t>{3, 7}));
  EXPECT_EQ(row(file.placement, 0), (Row{0, 1, 2, 1}));
  EXPECT_EQ(row(file.placement, 1), (Row{1, 0, 2, 0}));
}

TEST(EngineFormats, TensorrtLlmRefusesWhatItCannotUse) {
  const auto refuses = [](const std::string& text, const std::vector<std::string>& parts) {
    expect_refused([&] { parse_placement(text, "e.yaml", 2); }, {"e.yaml"});
    expect_refused([&] { parse_placement(text, "e.yaml", 2); }, parts);
  };
  const std::string key = "initial_global_assignments:\n";
  refuses(key, {"no layers"});
  refuses("num_slots: 2\n#initial_global_assignments:\n", {"no layers"});
  refuses(key + "  3: [0, 1]\nnum_slots: 4\n", {"layer 3", "2 slots; expected 4", "num_slots"});
  refuses(key + "  3: [0, 1]\n  4: [0]\n", {"layer 4", "1 slots; expected 2"});
  refuses(key + "  3: []\n", {"layer 3", "0 slots"});
  refuses(key + "  3: [0, 1]\n  3: [0, 1]\n", {"row 3", "layer 3 again"});
  refuses(key + "  3: [0, -1]\n", {"row 2", "whole number from 0", "-1]"});
  refuses(key + "  3: [0, x]\n", {"row 2", "not \"x]\""});
  refuses(key + "  3: [0, 1", {"row 2", "not the end"});
  refuses(key + "  3 [0, 1]\n", {"row 2", "colon"});
  refuses(key + "  3: 0\n", {"row 2", "list of experts"});
  refuses(key + "  three: [0, 1]\n", {"row 2", "a layer"});
  refuses(key + "  3: [0, 3]\n", {"layer 3", "expert 3"});
  refuses("  num_slots: 3\n" + key, {"row 1", "begin of a line"});
}

TEST(EngineFormats, VllmRefusesOtherLists) {
  const auto refuses = [](const std::string& text, const std::vector<std::string>& parts) {
    expect_refused([&] { parse_placement(text, "e.json", 2); }, {"e.json"});
    expect_refused([&] { parse_placement(text, "e.json", 2); }, parts);
  };
  refuses(R"({"layer_list": []})", {"0 layers"});
  refuses(R"({"layer_list": 3})", {"device_list"});
  refuses(R"({"layer_list": [{"device_list": []}]})", {"layer 0: 0 devices"});
  refuses(R"({"layer_list": [{"devices": []}]})", {"layer 0", "no \"device_list\""});
  refuses(R"({"layer_list": [{"device_list": [{"expert": [0]}]}]})",
          {"layer 0, device 0", "no \"device_expert\""});
  refuses(R"({"layer_list": [{"device_list": [{"device_expert": [0, 1]},
                                              {"device_expert": [2]}]}]})",
          {"layer 0, device 1", "1 slots; expected 2"});
}

// ---- which rows are whose
TEST(MatchPlacement, TakesTheLayersOfTheLoads) {
  const std::vector<std::int64_t> layers{3, 5};
  EXPECT_EQ(match_placement(example(), "p", layers, 7, 4, 2).expert_of_slot,
            example().placement.expert_of_slot);

  auto all = example();  // seven rows without numbers, as SGLang's
  all.layers.clear();
  all.placement.expert_of_slot = Matrix<std::int32_t>({7, 6});
  all.placement.share_of_slot = Matrix<double>({7, 6}, 1.0);
  for (std::size_t layer = 0; layer < 7; ++layer) {
    all.placement.expert_of_slot(layer, 0) = static_cast<std::int32_t>(layer);
  }
  const auto chosen = match_placement(all, "p", layers, 7, 4, 2);
  ASSERT_EQ(chosen.layers(), 2);
  EXPECT_EQ(chosen.expert_of_slot(0, 0), 3);
  EXPECT_EQ(chosen.expert_of_slot(1, 0), 5);
}

TEST(MatchPlacement, RefusesAnotherModel) {
  const auto refuses = [](const PlacementFile& file, const std::vector<std::int64_t>& layers,
                          int model_layers, int experts, int devices,
                          const std::vector<std::string>& parts) {
    expect_refused([&] { match_placement(file, "p", layers, model_layers, experts, devices); },
                   parts);
  };
  refuses(example(), {3, 5}, 7, 8, 2, {"p: ", "4 experts; expected 8"});
  refuses(example(), {3, 5}, 7, 4, 3, {"p: ", "2 devices; expected 3"});
  refuses(example(), {3}, 7, 4, 2, {"p: ", "2 layers; expected 1"});
  refuses(example(), {3, 5, 6}, 7, 4, 2, {"p: ", "2 layers; expected 3"});
  refuses(example(), {3, 6}, 7, 4, 2, {"p: ", "layer 5", "layer 6"});
  auto unnumbered = example();
  unnumbered.layers.clear();
  refuses(unnumbered, {3, 5, 6}, 7, 4, 2, {"expected 3", "or 7"});
}

}  // namespace
}  // namespace moevar::placement
