#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "placement/engine_formats.hpp"
#include "workload/json_input.hpp"

namespace moevar::placement {

namespace {

using nlohmann::json;

/// The engine keeps one slot per device and expert: a second one would be lost.
void refuse_twice_on_a_device(std::span<const std::int32_t> experts, int device, std::int64_t layer,
                              const std::string& path) {
  std::vector<std::int32_t> sorted(experts.begin(), experts.end());
  std::ranges::sort(sorted);
  const auto twice = std::ranges::adjacent_find(sorted);
  if (twice != sorted.end()) {
    throw InputError(
        fmt::format("{}, layer {}: device {} holds expert {} twice, which vLLM-Ascend cannot; "
                    "expected replicas on different devices",
                    path, layer, device, *twice));
  }
}

const json& member(const json& object, const char* key, const std::string& path,
                   const std::string& where) {
  if (!object.is_object() || !object.contains(key)) {
    throw InputError(
        fmt::format("{}, {}: no \"{}\"; expected vLLM-Ascend's layer_list of "
                    "device_list of device_expert",
                    path, where, key));
  }
  return object[key];
}

/// The same lists without the objects around them, [layers][devices][slots].
json nested_lists(const json& document, const std::string& path) {
  json layers = json::array();
  for (const auto& layer : document["layer_list"]) {
    json devices = json::array();
    const auto where = fmt::format("layer {}", layers.size());
    for (const auto& device : member(layer, "device_list", path, where)) {
      devices.push_back(member(device, "device_expert", path,
                               fmt::format("{}, device {}", where, devices.size())));
    }
    layers.push_back(std::move(devices));
  }
  return layers;
}

}  // namespace

std::string write_vllm(const PlacementFile& file, const std::string& path) {
  const auto& placement = file.placement;
  const auto width = static_cast<std::size_t>(placement.slots_per_device);
  std::string text =
      fmt::format("{{\"moe_layer_count\": {}, \"layer_list\": [\n", placement.layers());
  for (int layer = 0; layer < placement.layers(); ++layer) {
    text += fmt::format("{{\"layer_id\": {}, \"device_count\": {}, \"device_list\": [\n", layer,
                        placement.devices);
    for (int device = 0; device < placement.devices; ++device) {
      const auto experts = placement.expert_of_slot.row(layer).subspan(
          static_cast<std::size_t>(device) * width, width);
      refuse_twice_on_a_device(experts, device, file.layers[static_cast<std::size_t>(layer)], path);
      text += fmt::format(" {{\"device_id\": {}, \"device_expert\": [{}]}}{}\n", device,
                          fmt::join(experts, ", "), device + 1 < placement.devices ? "," : "");
    }
    text += layer + 1 < placement.layers() ? "]},\n" : "]}\n";
  }
  return text + "]}\n";
}

PlacementFile read_vllm(const json& document, const std::string& path) {
  constexpr std::array<std::string_view, 3> kAxes{"layer", "device", "slot"};
  workload::ArrayReader reader(path, "layer_list", kAxes,
                               {"an expert", workload::kLargestId, true});
  const auto values = reader.read(nested_lists(document, path));
  const auto& extents = reader.extents();
  Matrix<std::int32_t> experts({extents[0], extents[1] * extents[2]});
  std::ranges::transform(values, experts.flat().begin(),
                         [](double value) { return static_cast<std::int32_t>(value); });
  return engine_placement("vllm", std::move(experts), {}, static_cast<int>(extents[1]), path);
}

}  // namespace moevar::placement
