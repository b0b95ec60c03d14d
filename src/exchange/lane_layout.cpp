#include "exchange/lane_layout.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::exchange {

namespace {

/// Adds `rows` at the end of a layout's buffer.
void add_rows(RowLayout& layout, std::size_t rank, std::int64_t rows) {
  layout.total += rows;
  if (layout.total > std::numeric_limits<int>::max()) {
    throw EnvironmentError(
        fmt::format("all-to-all of over {} rows on one rank: MPI counts rows in an int; fewer "
                    "tokens per device are needed",
                    std::numeric_limits<int>::max()));
  }
  layout.count[rank] += static_cast<int>(rows);
}

/// A copy that goes on where the last one ended becomes part of it.
void add_copy(std::vector<BufferCopy>& copies, const BufferCopy& copy) {
  if (copy.rows == 0) {
    return;
  }
  if (!copies.empty()) {
    BufferCopy& last = copies.back();
    if (last.lane == copy.lane && last.lane_row + last.rows == copy.lane_row &&
        last.buffer_row + last.rows == copy.buffer_row) {
      last.rows += copy.rows;
      return;
    }
  }
  copies.push_back(copy);
}

void clear(RowLayout& layout) {
  std::ranges::fill(layout.count, 0);
  std::ranges::fill(layout.begin, 0);
  layout.total = 0;
}

}  // namespace

LanePlanner::LanePlanner(const ExchangeShape& shape, int rank, int ranks)
    : lanes_(static_cast<std::size_t>(shape.lanes)),
      slots_(static_cast<std::size_t>(shape.slots)),
      rank_(static_cast<std::size_t>(rank)),
      ranks_(static_cast<std::size_t>(ranks)),
      to_(lanes_ * devices()),
      from_(lanes_ * devices()),
      local_from_(lanes_ * lanes_) {
  for (RowLayout* layout : {&layout_.sent, &layout_.received}) {
    layout->count.resize(ranks_);
    layout->begin.resize(ranks_);
  }
  layout_.out.reserve(lanes_ * ranks_);
  layout_.in.reserve(lanes_ * devices());
  layout_.local.reserve(lanes_ * lanes_);
  layout_.leaves.resize(lanes_);
  layout_.comes.resize(lanes_);
}

void LanePlanner::sum_up(std::span<const DispatchLane> lanes) {
  if (lanes.size() != lanes_) {
    throw CheckError(fmt::format("dispatch of {} lanes, made for {}", lanes.size(), lanes_));
  }
  for (std::size_t lane = 0; lane < lanes_; ++lane) {
    const auto& [rows, to, from, received, room, stream] = lanes[lane];
    if (to.size() != devices() * slots_ || from.size() != devices() * slots_) {
      throw CheckError(fmt::format("dispatch: counts for {} and from {} slots, made for {}",
                                   to.size(), from.size(), devices() * slots_));
    }
    std::int64_t leaves = 0;
    std::int64_t comes = 0;
    for (std::size_t device = 0; device < devices(); ++device) {
      const auto out = to.subspan(device * slots_, slots_);
      const auto in = from.subspan(device * slots_, slots_);
      leaves += to_[lane * devices() + device] = std::reduce(out.begin(), out.end());
      comes += from_[lane * devices() + device] = std::reduce(in.begin(), in.end());
    }
    layout_.leaves[lane] = leaves;
    layout_.comes[lane] = comes;
    if (comes > room) {
      throw CheckError(fmt::format("dispatch: {} rows arrive, room is for {}", comes, room));
    }
  }
}

void LanePlanner::plan_sent() {
  clear(layout_.sent);
  layout_.out.clear();
  std::ranges::fill(layout_.leaves, 0);  // where a lane's rows for the rank begin, until all are
  for (std::size_t rank = 0; rank < ranks_; ++rank) {
    layout_.sent.begin[rank] = static_cast<int>(layout_.sent.total);
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      const auto rows = std::span(to_).subspan(lane * devices() + rank * lanes_, lanes_);
      std::int64_t& lane_row = layout_.leaves[lane];
      if (rank == rank_) {
        for (std::size_t to = 0; to < lanes_; ++to) {
          local_from_[lane * lanes_ + to] = lane_row;
          lane_row += rows[to];
        }
        continue;
      }
      const auto count = std::reduce(rows.begin(), rows.end());
      add_copy(layout_.out, {lane, lane_row, layout_.sent.total, count});
      add_rows(layout_.sent, rank, count);
      lane_row += count;
    }
  }
}

void LanePlanner::plan_received() {
  clear(layout_.received);
  layout_.in.clear();
  layout_.local.clear();
  std::ranges::fill(layout_.comes, 0);
  for (std::size_t device = 0; device < devices(); ++device) {
    const std::size_t rank = device / lanes_;
    if (device % lanes_ == 0) {
      layout_.received.begin[rank] = static_cast<int>(layout_.received.total);
    }
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      const auto rows = from_[lane * devices() + device];
      std::int64_t& lane_row = layout_.comes[lane];
      if (rank == rank_) {
        const std::size_t source = device % lanes_;
        if (rows > 0) {
          layout_.local.push_back(
              {source, lane, local_from_[source * lanes_ + lane], lane_row, rows});
        }
      } else {
        add_copy(layout_.in, {lane, lane_row, layout_.received.total, rows});
        add_rows(layout_.received, rank, rows);
      }
      lane_row += rows;
    }
  }
}

const LaneLayout& LanePlanner::plan(std::span<const DispatchLane> lanes) {
  sum_up(lanes);
  plan_sent();
  plan_received();
  return layout_;
}

CountExchange::CountExchange(const mpi::Communicator& comm, const ExchangeShape& shape)
    : comm_(comm),
      lanes_(static_cast<std::size_t>(shape.lanes)),
      slots_(static_cast<std::size_t>(shape.slots)),
      sent_(static_cast<std::size_t>(comm.size()) * lanes_ * lanes_ * slots_),
      received_(sent_.size()) {}

void CountExchange::run(std::span<const DispatchLane> lanes) {
  const auto ranks = static_cast<std::size_t>(comm_.size());
  const std::size_t piece = lanes_ * slots_;  // of one lane for, or from, one rank
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      std::ranges::copy(lanes[lane].rows_to.subspan(rank * piece, piece),
                        std::span(sent_).subspan((rank * lanes_ + lane) * piece, piece).begin());
    }
  }
  const int count = static_cast<int>(lanes_ * piece);
  MOEVAR_MPI(MPI_Alltoall(sent_.data(), count, MPI_INT64_T, received_.data(), count, MPI_INT64_T,
                          comm_.raw()));
  for (std::size_t device = 0; device < ranks * lanes_; ++device) {
    for (std::size_t lane = 0; lane < lanes_; ++lane) {
      std::ranges::copy(std::span(received_).subspan(device * piece + lane * slots_, slots_),
                        lanes[lane].rows_from.subspan(device * slots_, slots_).begin());
    }
  }
}

}  // namespace moevar::exchange
