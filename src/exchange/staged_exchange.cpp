#include "exchange/staged_exchange.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::exchange {

StagedExchange::StagedExchange(const mpi::Communicator& comm, const ExchangeShape& shape,
                               std::unique_ptr<CopyEngine> engine, Patience patience)
    : comm_(comm),
      shape_(shape),
      engine_(std::move(engine)),
      patience_(std::move(patience)),
      planner_(shape, comm.rank(), comm.size()),
      counts_(comm, shape),
      ends_(static_cast<std::size_t>(shape.lanes)) {
  engine_->make_points(static_cast<std::size_t>(Point::count) * ends_.size());
  MOEVAR_MPI(MPI_Type_contiguous(static_cast<int>(shape.row_bytes), MPI_BYTE, &row_));
  MOEVAR_MPI(MPI_Type_commit(&row_));
}

StagedExchange::~StagedExchange() {
  if (mpi::running()) {
    MPI_Type_free(&row_);
  }
}

void StagedExchange::reserve(std::int64_t sent_rows, std::int64_t received_rows) {
  if (comm_.size() == 1) {
    return;
  }
  const auto grow = [&](Buffer& buffer, std::int64_t rows) {
    if (buffer.rows < rows) {
      buffer = {};  // gone before there is a larger one
      buffer = {engine_->host_memory(bytes(rows)), rows};
    }
  };
  grow(near_, sent_rows);
  grow(far_, received_rows);
}

std::size_t StagedExchange::bytes(std::int64_t rows) const noexcept {
  return static_cast<std::size_t>(rows) * shape_.row_bytes;
}

std::size_t StagedExchange::point(Point kind, std::size_t lane) const noexcept {
  return static_cast<std::size_t>(kind) * ends_.size() + lane;
}

void StagedExchange::mark(Point kind) {
  for (std::size_t lane = 0; lane < ends_.size(); ++lane) {
    engine_->mark(point(kind, lane), *ends_[lane].stream);
  }
}

void StagedExchange::hold(Point kind) {
  for (std::size_t lane = 0; lane < ends_.size(); ++lane) {
    for (std::size_t other = 0; other < ends_.size(); ++other) {
      if (other != lane) {
        engine_->hold(point(kind, other), *ends_[lane].stream);
      }
    }
  }
}

void StagedExchange::check_room(const LaneLayout& layout) const {
  if (layout.sent.total > near_.rows || layout.received.total > far_.rows) {
    throw CheckError(
        fmt::format("dispatch: {} rows leave the rank and {} arrive, room on the host is for {} "
                    "and {}",
                    layout.sent.total, layout.received.total, near_.rows, far_.rows));
  }
}

void StagedExchange::copy_out(std::span<const BufferCopy> copies, std::byte* buffer) {
  for (const auto& [lane, lane_row, buffer_row, rows] : copies) {
    const Ends& ends = ends_[lane];
    engine_->copy(buffer + bytes(buffer_row),
                  static_cast<const std::byte*>(ends.from) + bytes(lane_row), bytes(rows),
                  *ends.stream);
  }
}

void StagedExchange::copy_in(std::span<const BufferCopy> copies, const std::byte* buffer) {
  for (const auto& [lane, lane_row, buffer_row, rows] : copies) {
    const Ends& ends = ends_[lane];
    engine_->copy(static_cast<std::byte*>(ends.to) + bytes(lane_row), buffer + bytes(buffer_row),
                  bytes(rows), *ends.stream);
  }
}

/// The lane that wants the rows takes them, once all lanes have theirs ready; the point `taken`
/// then says when the other lanes may use their memory again.
void StagedExchange::copy_local(const LaneLayout& layout, bool back) {
  hold(Point::ready);
  for (const auto& [first, second, first_row, second_row, rows] : layout.local) {
    const Ends& from = ends_[back ? second : first];
    const Ends& to = ends_[back ? first : second];
    engine_->copy(static_cast<std::byte*>(to.to) + bytes(back ? first_row : second_row),
                  static_cast<const std::byte*>(from.from) + bytes(back ? second_row : first_row),
                  bytes(rows), *to.stream);
  }
  mark(Point::taken);
}

/// Waits for the lanes, not for what they take from one another meanwhile.
void StagedExchange::travel(const std::byte* sent, const RowLayout& out, std::byte* received,
                            const RowLayout& in) {
  for (std::size_t lane = 0; lane < ends_.size(); ++lane) {
    wait_until(
        "exchange: cudaEventQuery", patience_,
        [&] { return engine_->reached(point(Point::ready, lane)); }, kWorkAdvice);
  }
  MOEVAR_MPI(MPI_Alltoallv(sent, out.count.data(), out.begin.data(), row_, received,
                           in.count.data(), in.begin.data(), row_, comm_.raw()));
}

void StagedExchange::wait(const cuda::Stream& stream) {
  wait_until(
      "exchange: cudaStreamQuery", patience_, [&] { return engine_->done(stream); }, kWorkAdvice);
}

void StagedExchange::dispatch(std::span<const DispatchLane> lanes) {
  if (shape_.counts == Counts::exchanged) {
    counts_.run(lanes);
  }
  const LaneLayout& layout = planner_.plan(lanes);
  for (std::size_t lane = 0; lane < ends_.size(); ++lane) {
    ends_[lane] = {lanes[lane].rows, lanes[lane].received, lanes[lane].stream};
  }
  const bool alone = comm_.size() == 1;
  if (!alone) {
    check_room(layout);
    hold(Point::landed);  // another lane may still fetch from where this one writes now
    copy_out(layout.out, near_.data.get());
  }
  mark(Point::ready);
  copy_local(layout, false);
  if (!alone) {
    travel(near_.data.get(), layout.sent, far_.data.get(), layout.received);
    copy_in(layout.in, far_.data.get());
    mark(Point::landed);
  }
  hold(Point::taken);
}

void StagedExchange::combine(std::span<const CombineLane> lanes) {
  if (lanes.size() != ends_.size()) {
    throw CheckError(fmt::format("combine of {} lanes, made for {}", lanes.size(), ends_.size()));
  }
  const LaneLayout& layout = planner_.latest();
  for (std::size_t lane = 0; lane < ends_.size(); ++lane) {
    ends_[lane] = {lanes[lane].results, lanes[lane].returned, lanes[lane].stream};
  }
  const bool alone = comm_.size() == 1;
  if (!alone) {
    copy_out(layout.in, far_.data.get());
  }
  mark(Point::ready);
  copy_local(layout, true);
  if (!alone) {
    travel(far_.data.get(), layout.received, near_.data.get(), layout.sent);
    copy_in(layout.out, near_.data.get());
    mark(Point::landed);
  }
  hold(Point::taken);
}

}  // namespace moevar::exchange
