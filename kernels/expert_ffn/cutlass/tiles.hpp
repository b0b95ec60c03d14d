#pragma once

#include <array>

#include "expert_ffn/grouped_gemm.hpp"

namespace moevar::expert_ffn {

/// Every tile's kernels, in the order of Result. The largest takes the fewest bytes for a product
/// of many rows, and two blocks share what they read of b; the smallest suits a few dozen rows.
std::array<GroupedGemm, 3> tile_128x256();
std::array<GroupedGemm, 3> tile_128x128();
std::array<GroupedGemm, 3> tile_64x128();

}  // namespace moevar::expert_ffn
