#include "expert_ffn/cutlass/grouped_gemm.cuh"
#include "expert_ffn/cutlass/tiles.hpp"

namespace moevar::expert_ffn {

std::array<GroupedGemm, 3> tile_128x128() {
  using namespace tile;  // NOLINT(google-build-using-namespace): shapes are written in its types
  using Bf16 = Shape<_128, _128, _64>;
  using Fp8 = Shape<_128, _128, _128>;
  using Cluster = Shape<_1, _1, _1>;
  return {grouped_gemm<Result::plain, Bf16, Cluster, Pingpong>("128x128"),
          grouped_gemm<Result::swiglu, Bf16, Cluster, Pingpong>("128x128"),
          grouped_gemm<Result::scaled, Fp8, Cluster, Pingpong>("128x128")};
}

}  // namespace moevar::expert_ffn
