#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "expert_ffn/cutlass/grouped_gemm.cuh"

/// The end of the fused product, thread by thread on the host, with the accumulators that each
/// kernel's own tiling gives a thread.
namespace moevar::expert_ffn {
namespace {

using namespace tile;  // NOLINT(google-build-using-namespace): shapes are written in its types

/// Element of a product x W13^T that a test can tell from every other.
float product_at(int row, int column) {
  return std::sin(0.37F * static_cast<float>(row) + 1.13F * static_cast<float>(column)) * 3.0F;
}

/// Runs every thread of every tile of a group of `rows` rows; expects every activation at its place
/// and nothing else written.
template <class TileShape, class ClusterShape, class How>
void expect_activations(int rows, int intermediate) {
  using Main = typename Kernel<Result::swiglu, TileShape, ClusterShape, How>::Main;
  const typename Main::TiledMma mma;
  const int columns = 2 * intermediate;
  const auto poison = cutlass::bfloat16_t(-77.0F);
  const int guard = 4 * intermediate;
  std::vector<cutlass::bfloat16_t> out(static_cast<std::size_t>(rows * intermediate + 2 * guard),
                                       poison);
  cutlass::bfloat16_t* const groups[2] = {nullptr, out.data() + guard};
  const std::int64_t strides[2] = {0, intermediate};
  const SwigluEpilogue epilogue({groups, strides});
  const TileShape shape;
  const auto problem = make_shape(rows, columns, 64, 1);
  for (int m = 0; m * size<0>(shape) < rows; ++m) {
    for (int n = 0; n * size<1>(shape) < columns; ++n) {
      for (int thread = 0; thread < size(mma); ++thread) {
        auto sums = partition_fragment_C(mma, take<0, 2>(shape));
        const auto place =
            mma.get_thread_slice(thread).partition_C(make_identity_tensor(take<0, 2>(shape)));
        for (int i = 0; i < size(sums); ++i) {
          sums(i) = product_at(m * size<0>(shape) + get<0>(place(i)),
                               n * size<1>(shape) + get<1>(place(i)));
        }
        epilogue(problem, shape, make_coord(m, n, 0, 1), sums, mma, 0, thread, nullptr);
      }
    }
  }
  int wrong = 0;
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < intermediate; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const float gate = product_at(row, static_cast<int>(slot_row({at, false})));
      const float up = product_at(row, static_cast<int>(slot_row({at, true})));
      const auto expected = cutlass::bfloat16_t(activation(gate, up));
      wrong += out[static_cast<std::size_t>(guard + row * intermediate + i)] == expected ? 0 : 1;
    }
  }
  EXPECT_EQ(wrong, 0);
  for (int i = 0; i < guard; ++i) {
    wrong += out[static_cast<std::size_t>(i)] == poison ? 0 : 1;
    wrong += out[out.size() - 1 - static_cast<std::size_t>(i)] == poison ? 0 : 1;
  }
  EXPECT_EQ(wrong, 0) << "written beyond the rows";
}

TEST(SwigluEpilogue, CooperativeTile) {
  expect_activations<Shape<_128, _256, _64>, Shape<_2, _1, _1>, Cooperative>(128, 128);
  expect_activations<Shape<_128, _256, _64>, Shape<_2, _1, _1>, Cooperative>(131, 208);
}

TEST(SwigluEpilogue, PingpongTiles) {
  expect_activations<Shape<_128, _128, _64>, Shape<_1, _1, _1>, Pingpong>(200, 80);
  expect_activations<Shape<_64, _128, _128>, Shape<_1, _1, _1>, Pingpong>(1, 64);
  expect_activations<Shape<_64, _128, _128>, Shape<_1, _1, _1>, Pingpong>(70, 112);
}

}  // namespace
}  // namespace moevar::expert_ffn
