#include "exchange/nccl_exchange.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "system/cuda.hpp"

namespace moevar::exchange {

NcclExchange::NcclExchange(const mpi::Communicator& comm, nccl::Communicator& nccl,
                           const ExchangeShape& shape, std::unique_ptr<CopyEngine> engine)
    : shape_(shape),
      rank_(static_cast<std::size_t>(comm.rank())),
      nccl_(nccl),
      engine_(std::move(engine)),
      planner_(shape, comm.rank(), comm.size()),
      counts_(comm, shape) {
  if (shape.lanes != 1) {
    throw EnvironmentError(
        fmt::format("exchange over NCCL with {} devices per rank: it has one; the staged exchange "
                    "has any number",
                    shape.lanes));
  }
  out_.reserve(static_cast<std::size_t>(comm.size()));
  in_.reserve(out_.capacity());
}

std::size_t NcclExchange::bytes(std::int64_t rows) const noexcept {
  return static_cast<std::size_t>(rows) * shape_.row_bytes;
}

std::size_t NcclExchange::begin_of(const RowLayout& layout, std::size_t rank) const noexcept {
  const auto& local = planner_.latest().local;  // left out of the layouts
  const std::int64_t own = rank > rank_ && !local.empty() ? local.front().rows : 0;
  return bytes(layout.begin[rank] + own);
}

void NcclExchange::transfer(const void* from, const RowLayout& out, void* to, const RowLayout& in,
                            const cuda::Stream& stream) {
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  for (const LaneCopy& own : planner_.latest().local) {
    engine_->copy(target + begin_of(in, rank_), source + begin_of(out, rank_), bytes(own.rows),
                  stream);
  }
  out_.clear();
  in_.clear();
  for (std::size_t rank = 0; rank < out.count.size(); ++rank) {
    const int peer = static_cast<int>(rank);
    if (out.count[rank] > 0) {
      out_.push_back({source + begin_of(out, rank), bytes(out.count[rank]), peer});
    }
    if (in.count[rank] > 0) {
      in_.push_back({target + begin_of(in, rank), bytes(in.count[rank]), peer});
    }
  }
  if (!out_.empty() || !in_.empty()) {
    nccl_.transfer(out_, in_, stream.raw());
  }
}

void NcclExchange::dispatch(std::span<const DispatchLane> lanes) {
  if (shape_.counts == Counts::exchanged) {
    counts_.run(lanes);
  }
  const LaneLayout& layout = planner_.plan(lanes);
  const DispatchLane& lane = lanes.front();
  transfer(lane.rows, layout.sent, lane.received, layout.received, *lane.stream);
}

void NcclExchange::combine(std::span<const CombineLane> lanes) {
  const LaneLayout& layout = planner_.latest();
  const CombineLane& lane = lanes.front();
  transfer(lane.results, layout.received, lane.returned, layout.sent, *lane.stream);
}

void NcclExchange::wait(const cuda::Stream& stream) {
  nccl_.wait("exchange: cudaStreamQuery", [&] { return engine_->done(stream); });
}

}  // namespace moevar::exchange
