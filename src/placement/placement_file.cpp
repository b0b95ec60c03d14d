#include "placement/placement_file.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "placement/engine_formats.hpp"
#include "placement/replicas.hpp"
#include "workload/json_input.hpp"

namespace moevar::placement {

namespace {

using nlohmann::json;
using workload::kLargestId;

constexpr const char* kMapKey = "physical_to_logical_map";
constexpr const char* kDevicesKey = "devices";
constexpr double kShareTolerance = 1e-6;  ///< of shares that another tool rounded

/// The number of a row's layer in its model, where that is known.
std::int64_t layer_number(const PlacementFile& file, std::size_t row) {
  return file.layers.empty() ? static_cast<std::int64_t>(row) : file.layers[row];
}

/// "key": [row, row, ...], a line each, for arrays that people look into as well.
template <class T>
std::string rows_text(const Matrix<T>& matrix) {
  std::string text = "[";
  for (std::size_t row = 0; row < matrix.extent(0); ++row) {
    const auto values = matrix.row(row);
    text +=
        (row == 0 ? "\n  " : ",\n  ") + json(std::vector<T>(values.begin(), values.end())).dump();
  }
  return text + "\n ]";
}

class Writer {
 public:
  /// A path need not be UTF-8, as JSON must.
  void add(std::string_view key, const json& value) {
    add_text(key, value.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  /// What is not known is left out: the reader takes no empty lists.
  template <class T>
  void add_known(std::string_view key, const std::vector<T>& values) {
    if (!values.empty()) {
      add(key, values);
    }
  }
  void add_text(std::string_view key, const std::string& value) {
    text_ += fmt::format("{} \"{}\": {}", text_.empty() ? "{\n" : ",\n", key, value);
  }
  [[nodiscard]] std::string finish() const { return text_ + "\n}\n"; }

 private:
  std::string text_;
};

/// Reads the values of one object of a file.
class Reader {
 public:
  Reader(const json& document, const std::string& path) : document_(document), path_(path) {}

  [[nodiscard]] bool has(const char* key) const { return document_.contains(key); }

  [[noreturn]] void fail(const std::string& problem) const {
    throw InputError(fmt::format("{}: {}", path_, problem));
  }

  [[nodiscard]] int whole(const char* key, int least) const {
    const json& value = document_.contains(key) ? document_[key] : json();
    if (!value.is_number_integer() || value.get<double>() < least ||
        value.get<double>() > kLargestId) {
      fail(fmt::format("{} is {}; expected a whole number from {}", key, value_text(key), least));
    }
    return value.get<int>();
  }

  /// A list or an object by its kind: written out, a deep one would overflow the stack.
  [[nodiscard]] std::string value_text(const char* key) const {
    if (!has(key)) {
      return "missing";
    }
    const json& value = document_[key];
    return value.is_structured() ? value.type_name() : printable(value.dump());
  }

  template <std::size_t Rank>
  [[nodiscard]] Tensor<double, Rank> numbers(const char* key,
                                             const std::array<std::string_view, Rank>& axes,
                                             const workload::NumberRule& rule) const {
    if (!has(key)) {
      fail(fmt::format("no \"{}\"", key));
    }
    workload::ArrayReader reader(path_, key, axes, rule);
    const auto values = reader.read(document_[key]);
    std::array<std::size_t, Rank> shape{};
    std::ranges::copy(reader.extents(), shape.begin());
    Tensor<double, Rank> tensor(shape);
    std::ranges::copy(values, tensor.flat().begin());
    return tensor;
  }

  /// A number per layer, or nothing where the key is missing.
  [[nodiscard]] std::vector<double> per_layer(const char* key, std::size_t layers,
                                              const workload::NumberRule& rule) const {
    if (!has(key)) {
      return {};
    }
    const auto values = numbers<1>(key, {"layer"}, rule);
    if (values.size() != layers) {
      fail(fmt::format("{} of {} layers; expected {}, as {} has", key, values.size(), layers,
                       kMapKey));
    }
    return {values.flat().begin(), values.flat().end()};
  }

 private:
  const json& document_;
  const std::string& path_;
};

void read_layers(const Reader& reader, PlacementFile& file) {
  const auto rows = static_cast<std::size_t>(file.placement.layers());
  for (const double number : reader.per_layer("layers", rows, {"a layer", kLargestId, true})) {
    const auto layer = static_cast<std::int64_t>(number);
    if (!file.layers.empty() && layer <= file.layers.back()) {
      reader.fail(fmt::format("layers has {} after {}; expected rising numbers", layer,
                              file.layers.back()));
    }
    file.layers.push_back(layer);
  }
  if (reader.has("model_layers")) {
    file.model_layers = reader.whole("model_layers", 1);
    if (!file.layers.empty() && file.layers.back() >= file.model_layers) {
      reader.fail(fmt::format("model_layers is {}, but there is a layer {}; expected {} or more",
                              file.model_layers, file.layers.back(), file.layers.back() + 1));
    }
  }
}

/// Requires that each expert's shares sum to 1, and makes that exact where they are rounded.
void settle_shares(PlacementFile& file, const std::string& path) {
  auto& placement = file.placement;
  for (int layer = 0; layer < placement.layers(); ++layer) {
    std::vector<double> sum(static_cast<std::size_t>(file.experts), 0.0);
    const auto experts = placement.expert_of_slot.row(layer);
    const auto shares = placement.share_of_slot.row(layer);
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      sum[static_cast<std::size_t>(experts[slot])] += shares[slot];
    }
    for (std::size_t expert = 0; expert < sum.size(); ++expert) {
      if (std::abs(sum[expert] - 1.0) > kShareTolerance) {
        throw InputError(fmt::format("{}, layer {}: the shares of expert {} sum to {}; expected 1",
                                     path, layer_number(file, static_cast<std::size_t>(layer)),
                                     expert, sum[expert]));
      }
    }
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      const double total = sum[static_cast<std::size_t>(experts[slot])];
      shares[slot] = std::abs(total - 1.0) > 1e-9 ? shares[slot] / total : shares[slot];
    }
  }
}

PlacementFile read_moevar(const json& document, const std::string& path) {
  const Reader reader(document, path);
  PlacementFile file;
  auto& placement = file.placement;
  const std::array<std::string_view, 2> axes{"layer", "slot"};
  const auto experts = reader.numbers<2>(kMapKey, axes, {"an expert", kLargestId, true});
  placement.devices = reader.whole(kDevicesKey, 1);
  placement.slots_per_device = reader.whole("slots_per_device", 1);
  if (static_cast<double>(placement.devices) * placement.slots_per_device !=
      static_cast<double>(experts.extent(1))) {
    reader.fail(fmt::format("{} has {} slots a layer; expected {} devices × {} slots", kMapKey,
                            experts.extent(1), placement.devices, placement.slots_per_device));
  }
  if (reader.has("policy") && document["policy"].is_string()) {
    placement.policy = document["policy"].get<std::string>();
  }
  placement.expert_of_slot = Matrix<std::int32_t>(experts.shape());
  std::ranges::transform(experts.flat(), placement.expert_of_slot.flat().begin(),
                         [](double value) { return static_cast<std::int32_t>(value); });
  const int largest = *std::ranges::max_element(placement.expert_of_slot.flat());
  file.experts = reader.has("experts") ? reader.whole("experts", 1) : largest + 1;
  read_layers(reader, file);
  require_every_expert(file, path);

  if (reader.has("slot_share")) {
    placement.share_of_slot = reader.numbers<2>("slot_share", axes, {"a share", 1.0, false});
    if (placement.share_of_slot.shape() != experts.shape()) {
      reader.fail(fmt::format("slot_share of {} layers × {} slots; expected {} × {}, as {}",
                              placement.share_of_slot.extent(0), placement.share_of_slot.extent(1),
                              experts.extent(0), experts.extent(1), kMapKey));
    }
    settle_shares(file, path);
  } else {
    placement.share_of_slot = Matrix<double>(experts.shape());
    placement = with_even_shares(std::move(placement), file.experts);
  }
  const workload::NumberRule time{"a time in µs", 0x1p53, false};
  const auto layers = experts.extent(0);
  placement.predicted_us = reader.per_layer("predicted_us", layers, time);
  placement.lower_bound_us = reader.per_layer("lower_bound_us", layers, time);
  file.even_split_us = reader.per_layer("even_split_us", layers, time);
  return file;
}

constexpr std::string_view kKnown =
    "expected what moevar place writes, SGLang's {\"physical_to_logical_map\"}, vLLM-Ascend's "
    "{\"layer_list\"} or TensorRT-LLM's YAML with initial_global_assignments";

}  // namespace

std::string write_placement(const PlacementFile& file, const PlacementOrigin& origin) {
  const auto& placement = file.placement;
  Writer writer;
  writer.add("policy", placement.policy);
  writer.add(kDevicesKey, placement.devices);
  writer.add("slots_per_device", placement.slots_per_device);
  writer.add("experts", file.experts);
  writer.add("redundant_experts", placement.slots() - file.experts);
  writer.add("groups", origin.groups);
  writer.add("nodes", origin.nodes);
  writer.add("seed", origin.seed);
  writer.add("even_shares", origin.even_shares);
  writer.add("loads", origin.loads);
  writer.add("steps", origin.steps);
  writer.add("speeds", origin.speeds.empty() ? json() : json(origin.speeds));
  writer.add("from", origin.from.empty() ? json() : json(origin.from));
  writer.add("receive_budget", origin.receive_budget < 0 ? json() : json(origin.receive_budget));
  writer.add("moved_experts", origin.moved_experts ? json(*origin.moved_experts) : json());
  writer.add("solve_ms", placement.solve_ms);
  if (file.model_layers > 0) {
    writer.add("model_layers", file.model_layers);
  }
  writer.add_known("layers", file.layers);
  writer.add_known("predicted_us", placement.predicted_us);
  writer.add_known("lower_bound_us", placement.lower_bound_us);
  writer.add_known("even_split_us", file.even_split_us);
  writer.add_text(kMapKey, rows_text(placement.expert_of_slot));
  writer.add_text("slot_share", rows_text(placement.share_of_slot));
  return writer.finish();
}

PlacementFile parse_placement(const std::string& text, const std::string& path, int devices) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  if (begin != std::string::npos && text[begin] != '{' && text[begin] != '[') {
    if (text.find("initial_global_assignments") == std::string::npos) {
      throw InputError(fmt::format("{}: no placement; {}", path, kKnown));
    }
    return read_tensorrt_llm(text, path, devices);
  }
  const auto document = workload::parse_json(text, path);
  if (document.is_object() && document.contains("layer_list")) {
    return read_vllm(document, path);
  }
  if (!document.is_object() || !document.contains(kMapKey)) {
    throw InputError(fmt::format("{}: no placement; {}", path, kKnown));
  }
  const bool ours = document.contains(kDevicesKey) || document.contains("slots_per_device") ||
                    document.contains("policy");
  return ours ? read_moevar(document, path) : read_sglang(document, path, devices);
}

PlacementFile parse_moevar_placement(const std::string& text, const std::string& path) {
  const auto document = workload::parse_json(text, path);
  if (!document.is_object() || !document.contains(kMapKey) || !document.contains(kDevicesKey)) {
    throw InputError(fmt::format(
        "{}: no placement of moevar's; expected the JSON that moevar place writes", path));
  }
  return read_moevar(document, path);
}

void require_every_expert(const PlacementFile& file, const std::string& path) {
  const auto& map = file.placement.expert_of_slot;
  const auto slots = map.extent(1);
  for (std::size_t row = 0; row < map.extent(0); ++row) {
    const auto largest = std::ranges::max_element(map.row(row));
    const auto fail = [&](const std::string& problem) {
      throw InputError(fmt::format("{}, layer {}: {}", path, layer_number(file, row), problem));
    };
    if (*largest >= file.experts || static_cast<std::size_t>(*largest) >= slots) {
      fail(fmt::format("slot {} holds expert {}; expected 0 to {}, every one in a slot",
                       largest - map.row(row).begin(), *largest,
                       std::min<std::size_t>(static_cast<std::size_t>(file.experts), slots) - 1));
    }
    std::vector<bool> held(static_cast<std::size_t>(*largest) + 1, false);
    for (const auto expert : map.row(row)) {
      held[static_cast<std::size_t>(expert)] = true;
    }
    const auto missing = std::ranges::find(held, false) - held.begin();
    if (missing < file.experts) {
      fail(fmt::format("no slot holds expert {}; expected each of the {} experts in one", missing,
                       file.experts));
    }
  }
}

Placement match_placement(const PlacementFile& file, const std::string& path,
                          std::span<const std::int64_t> layers, int model_layers, int experts,
                          int devices) {
  const auto fail = [&](const std::string& problem) {
    throw InputError(fmt::format("{}: {}", path, problem));
  };
  if (file.placement.devices != devices) {
    fail(fmt::format("a placement on {} devices; expected {}", file.placement.devices, devices));
  }
  if (file.experts != experts) {
    fail(fmt::format("a placement of {} experts; expected {}, as the loads have", file.experts,
                     experts));
  }
  const auto rows = static_cast<std::size_t>(file.placement.layers());
  const bool by_number = file.layers.empty() && rows != layers.size() &&
                         rows == static_cast<std::size_t>(model_layers);
  if (!by_number && rows != layers.size()) {
    fail(fmt::format(
        "a placement of {} layers; expected {}, the MoE layers of the loads{}", rows, layers.size(),
        file.layers.empty() ? fmt::format(", or {}, all of the model", model_layers) : ""));
  }
  const auto other = std::ranges::mismatch(file.layers, layers);
  if (!file.layers.empty() && other.in1 != file.layers.end()) {
    fail(fmt::format("layer {} of the model where the loads have layer {}; expected the same",
                     *other.in1, *other.in2));
  }
  if (!by_number) {
    return file.placement;
  }
  Placement chosen = file.placement;
  const std::array shape{layers.size(), file.placement.expert_of_slot.extent(1)};
  chosen.expert_of_slot = Matrix<std::int32_t>(shape);
  chosen.share_of_slot = Matrix<double>(shape);
  for (std::size_t row = 0; row < layers.size(); ++row) {
    std::ranges::copy(file.placement.expert_of_slot.row(layers[row]),
                      chosen.expert_of_slot.row(row).begin());
    std::ranges::copy(file.placement.share_of_slot.row(layers[row]),
                      chosen.share_of_slot.row(row).begin());
  }
  chosen.predicted_us.clear();
  chosen.lower_bound_us.clear();
  return chosen;
}

std::vector<int> uneven_slots(const Placement& placement, int experts) {
  const auto even = with_even_shares(placement, experts);
  std::vector<int> uneven;
  for (int layer = 0; layer < placement.layers(); ++layer) {
    const auto is = placement.share_of_slot.row(layer);
    const auto would_be = even.share_of_slot.row(layer);
    int count = 0;
    for (std::size_t slot = 0; slot < is.size(); ++slot) {
      count += std::abs(is[slot] - would_be[slot]) > kShareTolerance ? 1 : 0;
    }
    uneven.push_back(count);
  }
  return uneven;
}

Placement with_even_shares(Placement placement, int experts) {
  for (int layer = 0; layer < placement.layers(); ++layer) {
    share_evenly(placement.expert_of_slot.row(layer), experts, placement.share_of_slot.row(layer));
  }
  return placement;
}

}  // namespace moevar::placement
