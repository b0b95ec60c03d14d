#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "placement/placement.hpp"

namespace moevar::placement {

/// A placement as it stands in a file, ours or an engine's.
struct PlacementFile {
  Placement placement;  ///< rows as in the file
  int experts = 0;
  /// The model's number of each row's layer, rising; empty where the format does not tell.
  std::vector<std::int64_t> layers;
  int model_layers = 0;  ///< layers of the model, dense ones too; 0: not known
  /// [layers], what predicted_us would be if replicas shared evenly; empty where they do.
  std::vector<double> even_split_us;
};

/// How a placement came about, for its file.
struct PlacementOrigin {
  std::string loads;   ///< path
  int steps = 1;       ///< planned with; 1 where they were averaged
  std::string speeds;  ///< path; empty: all devices equal
  std::string from;    ///< path; empty: nowhere
  int receive_budget = -1;
  int groups = 1;
  int nodes = 1;
  std::uint64_t seed = 0;
  bool even_shares = false;
  std::optional<std::int64_t> moved_experts;  ///< against `from`, over all layers
};

/// The placement JSON of design and README: every field stands in results/README.md.
std::string write_placement(const PlacementFile& file, const PlacementOrigin& origin);

/// Reads a placement: the JSON of write_placement, SGLang's, vLLM-Ascend's or TensorRT-LLM's file
/// (engine_formats.hpp), told apart by what they hold. `devices`: of how many an engine's file is
/// where it doesn't say; 0: not known. Where shares are missing, as in the engines' files, replicas
/// share evenly. Throws InputError with the path and the place: neither of these formats, other
/// shapes, an expert without a slot, shares that don't sum to 1.
PlacementFile parse_placement(const std::string& text, const std::string& path, int devices);

/// As above, ours alone.
PlacementFile parse_moevar_placement(const std::string& text, const std::string& path);

/// The rows of `file` for a problem's layers, given by their numbers in a model of `model_layers`
/// layers. A file that numbers its layers must have these; one that doesn't, either as many rows as
/// there are layers or one for every layer of the model, dense ones too. Throws InputError, also
/// where devices or experts differ.
Placement match_placement(const PlacementFile& file, const std::string& path,
                          std::span<const std::int64_t> layers, int model_layers, int experts,
                          int devices);

/// Throws InputError, with path and layer, unless every row holds every expert.
void require_every_expert(const PlacementFile& file, const std::string& path);

/// [layers]: slots of a layer whose share is not that of an even split, counted.
std::vector<int> uneven_slots(const Placement& placement, int experts);

/// The placement with every expert's tokens split evenly over its slots.
Placement with_even_shares(Placement placement, int experts);

}  // namespace moevar::placement
