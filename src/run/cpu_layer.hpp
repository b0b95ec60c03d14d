#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor.hpp"
#include "base/units.hpp"
#include "exchange/mpi_exchange.hpp"
#include "fleet/cpu_device.hpp"
#include "gating/gating.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"
#include "token_exchange/token_exchange.hpp"

namespace moevar::run {

/// One device's readings in one layer call, on its own clock.
struct LayerStamps {
  Nanoseconds dispatched = 0;  ///< its tokens are there, experts begin
  Nanoseconds arrived = 0;     ///< experts done
  Nanoseconds exited = 0;      ///< outputs complete
  std::uint32_t tokens = 0;    ///< rows that its experts received
};

/// The MoE layers of one CPU device: gate → dispatch → experts → combine, all buffers in place
/// beforehand. Every layer works on the same activations of the device's own tokens.
class CpuLayer {
 public:
  /// `devices` are the ranks that work, rank d being device d; it outlives the object. Collective
  /// over them.
  CpuLayer(const mpi::Communicator& devices, const study::ModelShape& model, std::uint64_t seed,
           int layers, int tokens_per_device, int slots_per_device);

  /// Room for that many received rows; not to be called in a timed span.
  void reserve(std::int64_t received_rows);

  /// Runs a layer for forced `experts` of the device's first tokens, [tokens][top_k], at `slots` of
  /// the fleet, of the same shape. Collective over the devices; allocates nothing.
  LayerStamps run(int layer, std::span<const std::int32_t> experts,
                  std::span<const std::int32_t> slots, fleet::CpuDevice& device);

  /// What the latest run() gave, [tokens][hidden]; beyond its tokens what earlier ones left.
  [[nodiscard]] std::span<const float> outputs() const noexcept { return outputs_; }

  /// Bytes that it holds besides what reserve() adds.
  static std::size_t bytes(const study::ModelShape& model, int layers, int tokens_per_device);

 private:
  std::size_t hidden_;
  std::size_t top_k_;
  std::size_t slots_;
  gating::Shape gate_;
  exchange::MpiExchange exchange_;
  token_exchange::Permutation permutation_;

  Tensor<float, 3> routers_;      ///< [layers][experts][hidden]
  std::vector<float> x_;          ///< [tokens][hidden]
  std::vector<float> scores_;     ///< [tokens][experts]
  std::vector<float> weights_;    ///< [tokens][top_k]
  std::vector<float> rows_;       ///< [tokens × top_k][hidden], on the way out and back
  std::vector<float> outputs_;    ///< [tokens][hidden]
  std::vector<float> received_;   ///< [rows][hidden], by source and slot
  std::vector<float> expert_in_;  ///< [rows][hidden], by slot
  std::vector<float> expert_out_;
  std::vector<std::int64_t> rows_from_;      ///< [devices][slots]
  std::vector<std::int64_t> rows_per_slot_;  ///< [slots], of this device
  std::vector<std::int64_t> next_;           ///< scratch of group_cpu
};

}  // namespace moevar::run
