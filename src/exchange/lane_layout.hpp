#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exchange/device_exchange.hpp"
#include "exchange/mpi_exchange.hpp"

/// Where the rows of a dispatch lie. Pure, except for the exchange of counts.
namespace moevar::exchange {

/// Rows that lie together in a lane's memory and in a rank's buffer on the host.
struct BufferCopy {
  std::size_t lane = 0;
  std::int64_t lane_row = 0;
  std::int64_t buffer_row = 0;
  std::int64_t rows = 0;
  bool operator==(const BufferCopy&) const = default;
};

/// Rows from one lane of a rank to another, or to itself.
struct LaneCopy {
  std::size_t from_lane = 0;
  std::size_t to_lane = 0;
  std::int64_t from_row = 0;
  std::int64_t to_row = 0;
  std::int64_t rows = 0;
  bool operator==(const LaneCopy&) const = default;
};

/// A dispatch as one rank sees it. Rows for its own lanes go from lane to lane; the others pass two
/// buffers, both ordered by [other rank][lane it leaves][lane it goes to][slot], in which a lane's
/// rows for a rank, or from a device, lie together.
struct LaneLayout {
  RowLayout sent;                    ///< of the buffer that goes out; none to this rank
  RowLayout received;                ///< of the buffer that comes in; none from this rank
  std::vector<BufferCopy> out;       ///< from `rows` into the buffer that goes out
  std::vector<BufferCopy> in;        ///< from the buffer that came in into `received`
  std::vector<LaneCopy> local;       ///< from `rows` to `received`, both of this rank
  std::vector<std::int64_t> leaves;  ///< [lanes]: rows that a lane sends
  std::vector<std::int64_t> comes;   ///< [lanes]: rows that a lane receives
};

/// Makes layouts, without allocating memory.
class LanePlanner {
 public:
  /// `rank` of `ranks`.
  LanePlanner(const ExchangeShape& shape, int rank, int ranks);

  /// Reads rows_to and rows_from. Throws CheckError where these are not [devices][slots] or a lane
  /// has not enough room, EnvironmentError where a buffer has more rows than MPI can count.
  const LaneLayout& plan(std::span<const DispatchLane> lanes);
  /// The latest one.
  [[nodiscard]] const LaneLayout& latest() const noexcept { return layout_; }

 private:
  void sum_up(std::span<const DispatchLane> lanes);
  void plan_sent();
  void plan_received();
  [[nodiscard]] std::size_t devices() const noexcept { return ranks_ * lanes_; }

  std::size_t lanes_;
  std::size_t slots_;
  std::size_t rank_;
  std::size_t ranks_;
  std::vector<std::int64_t> to_;          ///< [lanes][devices]: rows, summed over slots
  std::vector<std::int64_t> from_;        ///< [lanes][devices]
  std::vector<std::int64_t> local_from_;  ///< [lanes][lanes]: where the rows for a lane begin
  LaneLayout layout_;
};

/// Tells every lane how many rows come to it, over MPI.
class CountExchange {
 public:
  /// `comm` outlives the object.
  CountExchange(const mpi::Communicator& comm, const ExchangeShape& shape);
  /// Fills rows_from from all devices' rows_to. Collective.
  void run(std::span<const DispatchLane> lanes);

 private:
  const mpi::Communicator& comm_;
  std::size_t lanes_;
  std::size_t slots_;
  std::vector<std::int64_t> sent_;      ///< [ranks][lane it leaves][lane it goes to][slots]
  std::vector<std::int64_t> received_;  ///< the same
};

}  // namespace moevar::exchange
