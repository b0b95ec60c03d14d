#include "placement/engine_formats.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::placement {

namespace {

constexpr std::int64_t kMostModelLayers = 1 << 16;  ///< keeps a mistyped layer from filling a disk

}  // namespace

std::span<const EngineFormat> engine_formats() {
  static constexpr std::array all{
      EngineFormat{"sglang", "SGLang", "--init-expert-location FILE", ".json", write_sglang},
      EngineFormat{"vllm", "vLLM-Ascend",
                   R"(--additional-config '{"eplb_config": {"expert_map_path": "FILE"}}')", ".json",
                   write_vllm},
      EngineFormat{"tensorrt-llm", "TensorRT-LLM", "moe_config.load_balancer: FILE", "",
                   write_tensorrt_llm},
  };
  return all;
}

const EngineFormat& find_engine_format(std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto& format : engine_formats()) {
    if (format.name == name) {
      return format;
    }
    names.push_back(format.name);
  }
  throw InputError(fmt::format("no format \"{}\"; the nearest is {}; there are {}", printable(name),
                               nearest(name, names), one_of(names)));
}

void number_layers(PlacementFile& file, std::optional<int> dense_layers,
                   std::optional<int> model_layers, const std::string& path) {
  if (file.layers.empty()) {
    file.layers.resize(static_cast<std::size_t>(file.placement.layers()));
    std::iota(file.layers.begin(), file.layers.end(), 0);
  }
  const std::int64_t shift = dense_layers ? *dense_layers - file.layers.front() : 0;
  for (auto& layer : file.layers) {
    layer += shift;
  }
  const std::int64_t least = file.layers.back() + 1;
  const std::int64_t all = model_layers.value_or(std::max(file.model_layers + shift, least));
  if (all < least || all > kMostModelLayers) {
    throw InputError(fmt::format(
        "{}: its last MoE layer is layer {} of a model of {}; expected a model of {} to {} layers",
        path, least - 1, all, least, std::max(kMostModelLayers, least)));
  }
  file.model_layers = static_cast<int>(all);
}

PlacementFile engine_placement(std::string_view engine, Matrix<std::int32_t> expert_of_slot,
                               std::vector<std::int64_t> layers, int devices,
                               const std::string& path) {
  const auto slots = static_cast<int>(expert_of_slot.extent(1));
  if (devices < 1 || slots % devices != 0) {
    throw InputError(fmt::format(
        "{}: {} slots a layer{}", path, slots,
        devices < 1 ? fmt::format("; {}'s file does not say on how many devices", engine)
                    : fmt::format(" do not divide over {} devices; expected a multiple", devices)));
  }
  PlacementFile file;
  file.placement.policy = engine;
  file.placement.devices = devices;
  file.placement.slots_per_device = slots / devices;
  file.placement.share_of_slot = Matrix<double>(expert_of_slot.shape());
  file.placement.expert_of_slot = std::move(expert_of_slot);
  file.experts = 1 + *std::ranges::max_element(file.placement.expert_of_slot.flat());
  file.layers = std::move(layers);
  require_every_expert(file, path);
  file.placement = with_even_shares(std::move(file.placement), file.experts);
  return file;
}

}  // namespace moevar::placement
