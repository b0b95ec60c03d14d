#pragma once

#include <cute/tensor.hpp>
#include <cutlass/cutlass.h>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/group_array_problem_shape.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include "base/error.hpp"
#include "expert_ffn/cutlass/swiglu_epilogue.cuh"
#include "expert_ffn/grouped_gemm.hpp"

/// A grouped GEMM of CUTLASS for compute capability 9.0 behind the functions of GroupedGemm. Every
/// instantiation is a file of its own: each takes a minute or so and some GB to compile.
namespace moevar::expert_ffn {

namespace tile {
using namespace cute;  // NOLINT(google-build-using-namespace): shapes are written in its types

using Strides = Stride<std::int64_t, _1, _0>*;
using Groups = cutlass::gemm::GroupProblemShape<Shape<int, int, int>>;
static_assert(sizeof(Groups::UnderlyingProblemShape) == sizeof(ProductShape));
static_assert(sizeof(Stride<std::int64_t, _1, _0>) == sizeof(std::int64_t));

/// Two warp groups take a tile by halves of its rows.
struct Cooperative {
  using Bf16 = cutlass::gemm::KernelPtrArrayTmaWarpSpecializedCooperative;
  using Fp8 = cutlass::gemm::KernelPtrArrayTmaWarpSpecializedCooperativeFP8FastAccum;
  using End = cutlass::epilogue::PtrArrayTmaWarpSpecializedCooperative;
};
/// Each takes a tile of its own: one's end runs beside the other's products.
struct Pingpong {
  using Bf16 = cutlass::gemm::KernelPtrArrayTmaWarpSpecializedPingpong;
  using Fp8 = cutlass::gemm::KernelPtrArrayTmaWarpSpecializedPingpongFP8FastAccum;
  using End = cutlass::epilogue::PtrArrayTmaWarpSpecializedPingpong;
};

template <Result result>
constexpr bool kFp8 = result == Result::scaled;
template <Result result>
using Input = std::conditional_t<kFp8<result>, cutlass::float_e4m3_t, cutlass::bfloat16_t>;

/// Multiplies by a factor of the row, whose group has a pointer to them.
template <class TileShape>
using RowFactors = cutlass::epilogue::fusion::Sm90EVT<
    cutlass::epilogue::fusion::Sm90Compute<cutlass::multiplies, cutlass::bfloat16_t, float,
                                           cutlass::FloatRoundStyle::round_to_nearest>,
    cutlass::epilogue::fusion::Sm90ColBroadcast<0, TileShape, float*, float, Stride<_1, _0, _0>>,
    cutlass::epilogue::fusion::Sm90AccFetch>;

template <Result result, class TileShape, class ClusterShape, class How>
struct EndOf {
  using Fusion = std::conditional_t<
      result == Result::scaled, RowFactors<TileShape>,
      cutlass::epilogue::fusion::LinearCombination<cutlass::bfloat16_t, float, void, float>>;
  using Type = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, TileShape, ClusterShape,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, void,
      cutlass::layout::RowMajor*, 8, cutlass::bfloat16_t, cutlass::layout::RowMajor*, 8,
      typename How::End, Fusion>::CollectiveOp;
};
template <class TileShape, class ClusterShape, class How>
struct EndOf<Result::swiglu, TileShape, ClusterShape, How> {
  using Type = cutlass::epilogue::collective::detail::Sm90TmaWarpSpecializedAdapter<SwigluEpilogue>;
};

template <Result result, class TileShape, class ClusterShape, class How>
struct Kernel {
  static constexpr int kAlignment = 16 / sizeof(Input<result>);
  using End = typename EndOf<result, TileShape, ClusterShape, How>::Type;
  using Main = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Input<result>,
      cutlass::layout::RowMajor*, kAlignment, Input<result>, cutlass::layout::ColumnMajor*,
      kAlignment, float, TileShape, ClusterShape,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename End::SharedStorage))>,
      std::conditional_t<kFp8<result>, typename How::Fp8, typename How::Bf16>>::CollectiveOp;
  using Type = cutlass::gemm::kernel::GemmUniversal<Groups, Main, End>;
};

template <class Gemm>
typename Gemm::GemmKernel::CollectiveEpilogue::Arguments end_of(const GroupedProduct& product) {
  using End = typename Gemm::GemmKernel::CollectiveEpilogue;
  auto* const strides =
      const_cast<std::remove_pointer_t<Strides>*>(  // NOLINT: CUTLASS takes it so and only reads
          reinterpret_cast<const std::remove_pointer_t<Strides>*>(product.out_strides));
  auto* const out = const_cast<cutlass::bfloat16_t**>(  // NOLINT: likewise
      reinterpret_cast<cutlass::bfloat16_t* const*>(product.out));
  if constexpr (std::is_base_of_v<SwigluEpilogue, End>) {
    return {out, product.out_strides};
  } else {
    typename End::Arguments end{{}, nullptr, nullptr, out, strides};
    if constexpr (requires { end.thread.alpha; }) {
      end.thread.alpha = 1.0F;
      end.thread.beta = 0.0F;
    } else {
      end.thread = {{product.row_factors, 0.0F, {}}, {}, {}};
    }
    return end;
  }
}

template <class Gemm>
typename Gemm::Arguments arguments_of(const GroupedProduct& product, int sms, bool along_columns) {
  using Kernel = typename Gemm::GemmKernel;
  using Element = typename Kernel::ElementA;
  using Order = typename Kernel::TileScheduler::RasterOrderOptions;
  const auto strides = [](const std::int64_t* all) {
    return const_cast<std::remove_pointer_t<Strides>*>(  // NOLINT: CUTLASS takes it so
        reinterpret_cast<const std::remove_pointer_t<Strides>*>(all));
  };
  typename Gemm::Arguments arguments;
  arguments.mode = cutlass::gemm::GemmUniversalMode::kGrouped;
  arguments.problem_shape = {
      product.groups,
      const_cast<Groups::UnderlyingProblemShape*>(  // NOLINT: likewise
          reinterpret_cast<const Groups::UnderlyingProblemShape*>(product.shapes)),
      nullptr};
  arguments.mainloop.ptr_A = const_cast<const Element**>(  // NOLINT: likewise
      reinterpret_cast<const Element* const*>(product.a));
  arguments.mainloop.dA = strides(product.a_strides);
  arguments.mainloop.ptr_B = const_cast<const Element**>(  // NOLINT: likewise
      reinterpret_cast<const Element* const*>(product.b));
  arguments.mainloop.dB = strides(product.b_strides);
  arguments.epilogue = end_of<Gemm>(product);
  arguments.hw_info.device_id = 0;  // not read: the number of multiprocessors is given
  arguments.hw_info.sm_count = sms;
  arguments.scheduler.raster_order = along_columns ? Order::AlongN : Order::AlongM;
  return arguments;
}

template <class Gemm>
std::size_t workspace_bytes(int sms) {
  return Gemm::get_workspace_size(arguments_of<Gemm>({}, sms, false));
}

inline void check(cutlass::Status status, const char* call) {
  if (status != cutlass::Status::kSuccess) {
    throw LibraryError(call, cutlassGetStatusString(status));
  }
}

template <class Gemm>
void run(const GroupedProduct& product, void* workspace, int sms, bool along_columns,
         const cuda::Stream& stream) {
  Gemm gemm;
  check(gemm.initialize(arguments_of<Gemm>(product, sms, along_columns), workspace, stream.raw()),
        "cutlass grouped GEMM, initialize");
  check(gemm.run(stream.raw()), "cutlass grouped GEMM, run");
}

}  // namespace tile

/// What a file of an instantiation defines.
template <Result result, class TileShape, class ClusterShape, class How>
GroupedGemm grouped_gemm(const char* name) {
  using Kernel = typename tile::Kernel<result, TileShape, ClusterShape, How>::Type;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
  return {name, result, tile::workspace_bytes<Gemm>, tile::run<Gemm>};
}

}  // namespace moevar::expert_ffn
