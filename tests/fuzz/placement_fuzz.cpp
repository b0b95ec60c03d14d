#include <cmath>

#include "fuzz.hpp"
#include "placement/engine_formats.hpp"
#include "placement/placement_file.hpp"

/// Placement files: moevar's, SGLang's, vLLM-Ascend's, TensorRT-LLM's.
namespace {

using namespace moevar;
using placement::PlacementFile;

PlacementFile read_again(const std::string& text, int devices) {
  try {
    return placement::parse_placement(text, "again", devices);
  } catch (const InputError& error) {
    fuzz::finding("written, and refused when read", error.what() + ("\n" + text));
  }
}

void check_own(const PlacementFile& file) {
  const auto again = read_again(placement::write_placement(file, {}), 0);
  const auto& before = file.placement;
  const auto& after = again.placement;
  const bool same_shares = std::ranges::equal(
      before.share_of_slot.flat(), after.share_of_slot.flat(),
      [](double a, double b) { return std::abs(a - b) < 1e-9; });  // settled twice
  fuzz::require(before.expert_of_slot == after.expert_of_slot && same_shares &&
                    before.devices == after.devices && file.experts == again.experts &&
                    file.layers == again.layers && before.predicted_us == after.predicted_us,
                "a placement changes when it is written and read");
}

void check_engine(const placement::EngineFormat& format, const PlacementFile& file) {
  std::string text;
  if (!fuzz::accepted([&] { text = format.write(file, "p.json"); })) {
    return;
  }
  const auto again = read_again(text, file.placement.devices).placement;
  const auto& rows = file.placement.expert_of_slot;
  for (std::size_t row = 0; row < rows.extent(0); ++row) {
    const bool by_number = format.name == "sglang";
    const auto there = by_number ? static_cast<std::size_t>(file.layers[row]) : row;
    fuzz::require(std::ranges::equal(rows.row(row), again.expert_of_slot.row(there)),
                  "an engine's file holds another placement", text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto input = fuzz::split({data, size});
  const int devices = input.pick(9);
  const int dense = input.pick(3) - 1;
  PlacementFile file;
  if (!fuzz::accepted([&] { file = placement::parse_placement(input.text, "p.json", devices); })) {
    return 0;
  }
  try {
    placement::check_placement(file.placement, file.experts);
  } catch (const CheckError& error) {
    fuzz::finding("a placement was read that is none", error.what());
  }
  fuzz::require(file.layers.empty() || std::ranges::is_sorted(file.layers, std::less_equal{}),
                "layers do not rise");
  (void)placement::uneven_slots(file.placement, file.experts);
  check_own(file);
  const bool numbered = fuzz::accepted([&] {
    placement::number_layers(file, dense < 0 ? std::nullopt : std::optional(dense), std::nullopt,
                             "p.json");
  });
  // a layer's number makes SGLang's file as long as the model
  if (numbered && std::int64_t{file.model_layers} * file.placement.slots() < (1 << 16)) {
    for (const auto& format : placement::engine_formats()) {
      check_engine(format, file);
    }
  }
  return 0;
}
