#pragma once

#include <array>
#include <cstdint>
#include <cute/tensor.hpp>
#include <cutlass/cuda_host_adapter.hpp>
#include <cutlass/epilogue/dispatch_policy.hpp>
#include <cutlass/gemm/dispatch_policy.hpp>
#include <cutlass/numeric_types.h>

#include "expert_ffn/activation.hpp"
#include "expert_ffn/slot_layout.hpp"

namespace moevar::expert_ffn {

/// The end of a grouped GEMM for CUTLASS: makes activations of the accumulators, whose columns are
/// interleaved as slot_layout.hpp says, and writes them from registers: 8 bytes a thread, 32 bytes
/// without a gap by 4 lanes.
class SwigluEpilogue {
 public:
  using DispatchPolicy = cutlass::epilogue::PtrArrayNoSmemWarpSpecialized;
  using ElementC = void;
  using ElementD = cutlass::bfloat16_t;
  using InternalStrideC = cute::Stride<std::int64_t, cute::_1, cute::_0>;
  using InternalStrideD = InternalStrideC;
  using StrideC = InternalStrideC*;
  using StrideD = InternalStrideD*;
  /// What a device adapter asks for.
  struct ThreadEpilogueOp {
    using ElementOutput = ElementD;
    using ElementAccumulator = float;
    using ElementCompute = float;
  };
  struct SharedStorage {};
  using TensorMapStorage = SharedStorage;

  struct Arguments {
    ElementD* const* out = nullptr;         ///< of every group
    const std::int64_t* strides = nullptr;  ///< of every group's rows
  };
  using Params = Arguments;

  template <class Problem>
  static constexpr Params to_underlying_arguments(const Problem& /*problem*/, const Arguments& args,
                                                  void* /*workspace*/) {
    return args;
  }
  template <class Problem>
  static std::size_t get_workspace_size(const Problem& /*problem*/, const Arguments& /*args*/,
                                        int /*sms*/) {
    return 0;
  }
  template <class Problem>
  static cutlass::Status initialize_workspace(const Problem& /*problem*/, const Arguments& /*args*/,
                                              void* /*workspace*/, cudaStream_t /*stream*/,
                                              cutlass::CudaHostAdapter* /*adapter*/ = nullptr) {
    return cutlass::Status::kSuccess;
  }
  template <class Problem>
  static bool can_implement(const Problem& /*problem*/, const Arguments& /*args*/) {
    return true;
  }

  CUTE_HOST_DEVICE explicit SwigluEpilogue(const Params& params) : params_(params) {}

  /// For one thread and one tile. The tile's coordinate has the group last.
  template <class Problem, class Tile, class Coordinate, class Engine, class Layout, class TiledMma,
            class Residue>
  CUTE_HOST_DEVICE void operator()(const Problem& problem, const Tile& tile,
                                   const Coordinate& coordinate,
                                   const cute::Tensor<Engine, Layout>& accumulators,
                                   const TiledMma& mma, const Residue& /*residue*/, int thread,
                                   char* /*shared*/) const {
    using namespace cute;
    static_assert(is_static<Layout>::value);
    const auto [m, n, k, group] = coordinate;
    const int rows = get<0>(problem);
    const int columns = get<1>(problem);
    ElementD* const out = params_.out[group];
    const std::int64_t stride = params_.strides[group];

    const auto all = make_identity_tensor(make_shape(rows, columns));
    const auto mine = local_tile(all, take<0, 2>(tile), make_coord(m, n));
    const auto place = mma.get_thread_slice(thread).partition_C(mine);  // as the accumulators
    constexpr int kColumns = size<0, 2>(Layout{});                      // by 8 in an instruction
    static_assert(kColumns % 4 == 0, "a tile holds whole blocks");
    CUTE_UNROLL
    for (int i = 0; i < size<1>(Layout{}); ++i) {
      CUTE_UNROLL
      for (int j = 0; j < size<2>(Layout{}); ++j) {
        CUTE_UNROLL
        for (int half = 0; half < 2; ++half) {
          CUTE_UNROLL
          for (int block = 0; block < kColumns; block += 4) {
            const auto at = place(make_coord(0, half, block), i, j);
            const int row = get<0>(at);
            const int column = get<1>(at);
            if (row < rows && column < columns) {
              Four four;
              CUTE_UNROLL
              for (int v = 0; v < 4; ++v) {
                four.values[v] = ElementD(
                    activation(accumulators(make_coord(v % 2, half, block + v / 2), i, j),
                               accumulators(make_coord(v % 2, half, block + v / 2 + 2), i, j)));
              }
              const int first = column / 32 * 16 + column % 32 * 2;
              *reinterpret_cast<Four*>(out + row * stride + first) = four;
            }
          }
        }
      }
    }
  }

 private:
  struct alignas(8) Four {
    std::array<ElementD, kThreadActivations> values;
  };

  Params params_;
};

}  // namespace moevar::expert_ffn
