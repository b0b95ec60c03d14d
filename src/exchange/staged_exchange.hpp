#pragma once

#include <memory>

#include "exchange/copy_engine.hpp"
#include "exchange/device_exchange.hpp"
#include "exchange/lane_layout.hpp"
#include "system/patience.hpp"

namespace moevar::exchange {

/// Rows for other ranks pass the host: the lanes copy them there, MPI_Alltoallv takes them on, in
/// units of rows, and the lanes fetch what came. Rows between lanes of one rank go from device
/// memory to device memory, so that one rank alone needs neither host nor MPI ("local"). With other
/// ranks, dispatch() and combine() wait until all lanes have come to them. Works where ranks share
/// a GPU and where there is no NCCL.
class StagedExchange final : public DeviceExchange {
 public:
  /// `comm` outlives the object. Collective.
  StagedExchange(const mpi::Communicator& comm, const ExchangeShape& shape,
                 std::unique_ptr<CopyEngine> engine, Patience patience);
  ~StagedExchange() override;
  StagedExchange(const StagedExchange&) = delete;
  StagedExchange& operator=(const StagedExchange&) = delete;
  StagedExchange(StagedExchange&&) = delete;
  StagedExchange& operator=(StagedExchange&&) = delete;

  void reserve(std::int64_t sent_rows, std::int64_t received_rows) override;
  void dispatch(std::span<const DispatchLane> lanes) override;
  void combine(std::span<const CombineLane> lanes) override;
  void wait(const cuda::Stream& stream) override;
  /// Streams of other lanes then have to be forked from the one that is recorded.
  [[nodiscard]] bool capturable() const noexcept override {
    return comm_.size() == 1 && shape_.counts == Counts::known;
  }
  [[nodiscard]] std::string_view path() const noexcept override {
    return comm_.size() == 1 ? "local" : "staged";
  }

 private:
  /// Points of the lanes' streams, one of each kind a lane.
  enum class Point : std::uint8_t {
    ready,   ///< what it sends has left for the host, or may be taken by other lanes
    taken,   ///< it has taken what other lanes sent
    landed,  ///< it has fetched what came to the host
    count
  };
  struct Ends {
    const void* from = nullptr;
    void* to = nullptr;
    const cuda::Stream* stream = nullptr;
  };
  struct Buffer {
    std::shared_ptr<std::byte> data;
    std::int64_t rows = 0;
  };

  [[nodiscard]] std::size_t bytes(std::int64_t rows) const noexcept;
  [[nodiscard]] std::size_t point(Point kind, std::size_t lane) const noexcept;
  void mark(Point kind);
  /// Every lane waits for this point of all others.
  void hold(Point kind);
  void check_room(const LaneLayout& layout) const;
  void copy_out(std::span<const BufferCopy> copies, std::byte* buffer);
  void copy_in(std::span<const BufferCopy> copies, const std::byte* buffer);
  void copy_local(const LaneLayout& layout, bool back);
  void travel(const std::byte* sent, const RowLayout& out, std::byte* received,
              const RowLayout& in);

  const mpi::Communicator& comm_;
  ExchangeShape shape_;
  std::unique_ptr<CopyEngine> engine_;
  Patience patience_;
  MPI_Datatype row_ = MPI_DATATYPE_NULL;
  LanePlanner planner_;
  CountExchange counts_;
  std::vector<Ends> ends_;  ///< [lanes], of the call under way
  Buffer near_;             ///< as `rows` are ordered: filled by dispatch, emptied by combine
  Buffer far_;              ///< as `received` is
};

}  // namespace moevar::exchange
