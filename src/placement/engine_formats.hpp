#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "placement/placement_file.hpp"

/// The placement files of inference engines, read and written as the named revisions do. None has a
/// place for shares: the engines split an expert's tokens evenly over its slots.
namespace moevar::placement {

struct EngineFormat {
  std::string_view name;    ///< as on the command line
  std::string_view engine;  ///< for people
  std::string_view use;     ///< how the engine is told of the file
  std::string_view ending;  ///< that the engine demands of the file's name; empty: none
  /// Every layer of `file` has its number, and model_layers is known. Throws InputError for what
  /// the engine cannot hold; `path` names the placement then.
  std::string (*write)(const PlacementFile& file, const std::string& path);
};

/// Every format, in the order of the list in engine_formats.cpp.
std::span<const EngineFormat> engine_formats();

/// Throws InputError that names the nearest format when there is none of that name.
const EngineFormat& find_engine_format(std::string_view name);

/// Gives every layer of `file` its number in the model, for formats that count dense layers.
///   dense_layers  how many come before the first MoE layer: the file's numbers move by as much;
///                 without it they stay, and where there are none they start at 0
///   model_layers  of the whole model; without it what the file says, or up to its last layer
/// Throws InputError where the numbers don't fit.
void number_layers(PlacementFile& file, std::optional<int> dense_layers,
                   std::optional<int> model_layers, const std::string& path);

/// SGLang's --init-expert-location. JSON {"physical_to_logical_map": [model layers][slots]} and no
/// further key: the file's keys become arguments of init_by_mapping. All layers of the model have a
/// row, dense ones too; theirs mean nothing and hold experts in order.
/// Source: sgl-project/sglang at 01fec5c2, python/sglang/srt/eplb/expert_location.py.
std::string write_sglang(const PlacementFile& file, const std::string& path);
PlacementFile read_sglang(const nlohmann::json& document, const std::string& path, int devices);

/// vLLM-Ascend's eplb_config.expert_map_path. JSON {"moe_layer_count", "layer_list": [{"layer_id",
/// "device_count", "device_list": [{"device_id", "device_expert": [slots of the device]}]}]};
/// layers are MoE layers counted from 0. Lists count by their order, as the engine reads them. A
/// device cannot hold an expert twice. vLLM itself loads no placement (vllm-project/vllm at
/// 00193b82, vllm/config/parallel.py; pull requests 41141, 49572 and 53022 are open). Source:
/// vllm-project/vllm-ascend at 182b75ea, vllm_ascend/eplb/core/eplb_utils.py.
std::string write_vllm(const PlacementFile& file, const std::string& path);
PlacementFile read_vllm(const nlohmann::json& document, const std::string& path);

/// TensorRT-LLM's moe_config.load_balancer. YAML: num_slots, initial_global_assignments {layer of
/// the model: [slots]}, layer_updates_per_iter (0: the placement stays). The reader knows the YAML
/// that such files are written in: an entry a layer, its list in brackets or a "- " a line.
/// Source: NVIDIA/TensorRT-LLM at 2a595f81, examples/wide_ep/ep_load_balancer/README.md.
std::string write_tensorrt_llm(const PlacementFile& file, const std::string& path);
PlacementFile read_tensorrt_llm(std::string_view text, const std::string& path, int devices);

/// What all readers do last with their rows, [layers][slots] of expert numbers: experts (the
/// largest
/// + 1) and even shares. `layers`: the rows' numbers in the model, empty where the format has none.
/// Throws InputError where the slots don't divide over the devices, devices are not known, or an
/// expert has no slot.
PlacementFile engine_placement(std::string_view engine, Matrix<std::int32_t> expert_of_slot,
                               std::vector<std::int64_t> layers, int devices,
                               const std::string& path);

}  // namespace moevar::placement
