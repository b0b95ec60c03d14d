#pragma once

#include <memory>

#include "exchange/copy_engine.hpp"
#include "exchange/device_exchange.hpp"
#include "exchange/lane_layout.hpp"
#include "system/nccl.hpp"

namespace moevar::exchange {

/// Over NCCL, as one group of sends and receives with uneven counts; rows that stay on the GPU are
/// copied there. One lane per rank. Nothing waits for the GPU. Part of builds with CUDA.
class NcclExchange final : public DeviceExchange {
 public:
  /// `comm` and `nccl`, which has the same ranks, outlive the object. Throws EnvironmentError where
  /// a rank has several lanes. Collective.
  NcclExchange(const mpi::Communicator& comm, nccl::Communicator& nccl, const ExchangeShape& shape,
               std::unique_ptr<CopyEngine> engine);

  void reserve(std::int64_t, std::int64_t) override {}
  void dispatch(std::span<const DispatchLane> lanes) override;
  void combine(std::span<const CombineLane> lanes) override;
  void wait(const cuda::Stream& stream) override;
  [[nodiscard]] bool capturable() const noexcept override { return shape_.counts == Counts::known; }
  [[nodiscard]] std::string_view path() const noexcept override { return "nccl"; }

 private:
  /// Where the rows for, or from, a rank begin in the lane's memory, bytes.
  [[nodiscard]] std::size_t begin_of(const RowLayout& layout, std::size_t rank) const noexcept;
  [[nodiscard]] std::size_t bytes(std::int64_t rows) const noexcept;
  void transfer(const void* from, const RowLayout& out, void* to, const RowLayout& in,
                const cuda::Stream& stream);

  ExchangeShape shape_;
  std::size_t rank_;
  nccl::Communicator& nccl_;
  std::unique_ptr<CopyEngine> engine_;
  LanePlanner planner_;
  CountExchange counts_;
  std::vector<nccl::Outgoing> out_;
  std::vector<nccl::Incoming> in_;
};

}  // namespace moevar::exchange
