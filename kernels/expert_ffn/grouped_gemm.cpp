#include "expert_ffn/grouped_gemm.hpp"

#include <vector>

#if defined(MOEVAR_HAVE_CUTLASS)
#include "expert_ffn/cutlass/tiles.hpp"
#endif

namespace moevar::expert_ffn {

std::span<const GroupedGemm> grouped_gemms() {
#if defined(MOEVAR_HAVE_CUTLASS)
  static const auto all = [] {
    std::vector<GroupedGemm> kernels;
    for (const auto& tile : {tile_128x256(), tile_128x128(), tile_64x128()}) {
      kernels.insert(kernels.end(), tile.begin(), tile.end());
    }
    return kernels;
  }();
  return all;
#else
  return {};
#endif
}

}  // namespace moevar::expert_ffn
