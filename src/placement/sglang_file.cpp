#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "placement/engine_formats.hpp"
#include "workload/json_input.hpp"

namespace moevar::placement {

std::string write_sglang(const PlacementFile& file, const std::string& /*path*/) {
  std::vector<std::int32_t> dense(static_cast<std::size_t>(file.placement.slots()));
  for (std::size_t slot = 0; slot < dense.size(); ++slot) {
    dense[slot] = static_cast<std::int32_t>(slot) % file.experts;
  }
  std::string text = "{\"physical_to_logical_map\": [\n";
  std::size_t row = 0;
  for (std::int64_t layer = 0; layer < file.model_layers; ++layer) {
    std::span<const std::int32_t> experts = dense;
    if (row < file.layers.size() && file.layers[row] == layer) {
      experts = file.placement.expert_of_slot.row(row++);
    }
    text +=
        fmt::format("[{}]{}\n", fmt::join(experts, ", "), layer + 1 < file.model_layers ? "," : "");
  }
  return text + "]}\n";
}

PlacementFile read_sglang(const nlohmann::json& document, const std::string& path, int devices) {
  constexpr std::array<std::string_view, 2> kAxes{"layer", "slot"};
  workload::ArrayReader reader(path, "physical_to_logical_map", kAxes,
                               {"an expert", workload::kLargestId, true});
  const auto values = reader.read(document["physical_to_logical_map"]);
  Matrix<std::int32_t> experts({reader.extents()[0], reader.extents()[1]});
  std::ranges::transform(values, experts.flat().begin(),
                         [](double value) { return static_cast<std::int32_t>(value); });
  return engine_placement("sglang", std::move(experts), {}, devices, path);
}

}  // namespace moevar::placement
