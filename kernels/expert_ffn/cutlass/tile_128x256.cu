#include "expert_ffn/cutlass/grouped_gemm.cuh"
#include "expert_ffn/cutlass/tiles.hpp"

namespace moevar::expert_ffn {

std::array<GroupedGemm, 3> tile_128x256() {
  using namespace tile;  // NOLINT(google-build-using-namespace): shapes are written in its types
  using Bf16 = Shape<_128, _256, _64>;
  using Fp8 = Shape<_128, _256, _128>;
  using Cluster = Shape<_2, _1, _1>;
  return {grouped_gemm<Result::plain, Bf16, Cluster, Cooperative>("128x256"),
          grouped_gemm<Result::swiglu, Bf16, Cluster, Cooperative>("128x256"),
          grouped_gemm<Result::scaled, Fp8, Cluster, Cooperative>("128x256")};
}

}  // namespace moevar::expert_ffn
