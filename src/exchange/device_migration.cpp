#include "exchange/device_migration.hpp"

#include <algorithm>
#include <array>

namespace moevar::exchange {

namespace {

constexpr int kTag = 93;
constexpr std::size_t kPiece = std::size_t{4} << 20U;
constexpr std::size_t kWindow = 4;

}  // namespace

DeviceMigration::DeviceMigration(const mpi::Communicator& comm, int lanes, std::size_t bytes,
                                 std::unique_ptr<CopyEngine> engine, Patience patience)
    : comm_(comm),
      lanes_(static_cast<std::size_t>(lanes)),
      bytes_(bytes),
      engine_(std::move(engine)),
      patience_(std::move(patience)) {}

void DeviceMigration::move(std::span<const WeightMove> moves,
                           std::span<const cuda::Stream* const> streams) {
  leaving_.clear();
  coming_.clear();
  staying_.clear();
  const int lanes = static_cast<int>(lanes_);
  for (const auto& [from, to, source, target] : moves) {
    const int from_rank = from / lanes;
    const int to_rank = to / lanes;
    const auto from_lane = static_cast<std::size_t>(from % lanes);
    const auto to_lane = static_cast<std::size_t>(to % lanes);
    if (from_rank == comm_.rank() && to_rank == comm_.rank()) {
      staying_.push_back({source, target, from_lane, to_lane});
    } else if (from_rank == comm_.rank()) {
      leaving_.push_back({static_cast<const std::byte*>(source), from_lane, to_rank});
    } else if (to_rank == comm_.rank()) {
      coming_.push_back({static_cast<std::byte*>(target), to_lane, from_rank});
    }
  }
  copy_staying(streams);
  travel(leaving_, coming_, streams);
}

/// The lane that wants the weights takes them, once the lane that has them has come here too.
void DeviceMigration::copy_staying(std::span<const cuda::Stream* const> streams) {
  const auto ready = [](std::size_t lane) { return lane; };
  const auto taken = [&](std::size_t lane) { return lanes_ + lane; };
  for (std::size_t lane = 0; lane < lanes_; ++lane) {
    engine_->mark(ready(lane), *streams[lane]);
  }
  for (const auto& [source, target, from, to] : staying_) {
    engine_->hold(ready(from), *streams[to]);
    engine_->copy(target, source, bytes_, *streams[to]);
  }
  for (std::size_t lane = 0; lane < lanes_; ++lane) {
    engine_->mark(taken(lane), *streams[lane]);
  }
  for (const auto& [source, target, from, to] : staying_) {
    engine_->hold(taken(to), *streams[from]);
  }
}

/// Pieces of all moves in their order, a window of them under way in either direction. The piece
/// that comes first in the order of all ranks is always in both its ranks' windows: nothing can
/// stall for good.
class StagedMigration::Pipeline {
 public:
  Pipeline(StagedMigration& owner, std::span<const Leaving> leaving, std::span<const Coming> coming,
           std::span<const cuda::Stream* const> streams)
      : owner_(owner),
        leaving_(leaving),
        coming_(coming),
        streams_(streams),
        pieces_((owner.bytes_ + kPiece - 1) / kPiece) {
    sends_.fill(MPI_REQUEST_NULL);
    receives_.fill(MPI_REQUEST_NULL);
  }

  /// Goes on as far as it can without waiting; returns whether all is over.
  bool advance() {
    send();
    receive();
    return freed_ == leaving_.size() * pieces_ && landed_ == coming_.size() * pieces_;
  }

 private:
  static bool is_over(MPI_Request& request) {
    int over = 0;
    // not MOEVAR_MPI: asking again and again is no progress that a watchdog should see
    mpi::check(MPI_Test(&request, &over, MPI_STATUS_IGNORE), "MPI_Test");
    return over != 0;
  }
  [[nodiscard]] std::size_t offset(std::size_t piece) const noexcept {
    return piece % pieces_ * kPiece;
  }
  [[nodiscard]] std::size_t size(std::size_t piece) const noexcept {
    return std::min(kPiece, owner_.bytes_ - offset(piece));
  }
  [[nodiscard]] std::byte* buffer(std::size_t direction, std::size_t piece) const noexcept {
    return owner_.buffer_.get() + (direction * kWindow + piece % kWindow) * kPiece;
  }
  [[nodiscard]] std::size_t point(std::size_t direction, std::size_t piece) const noexcept {
    return owner_.first_point() + direction * kWindow + piece % kWindow;
  }

  void send() {
    auto& engine = *owner_.engine_;
    for (; copied_ < std::min(leaving_.size() * pieces_, freed_ + kWindow); ++copied_) {
      const Leaving& blob = leaving_[copied_ / pieces_];
      const auto& stream = *streams_[blob.lane];
      engine.copy(buffer(0, copied_), blob.data + offset(copied_), size(copied_), stream);
      engine.mark(point(0, copied_), stream);
    }
    for (; sent_ < copied_ && engine.reached(point(0, sent_)); ++sent_) {
      MOEVAR_MPI(MPI_Isend(buffer(0, sent_), static_cast<int>(size(sent_)), MPI_BYTE,
                           leaving_[sent_ / pieces_].peer, kTag, owner_.comm_.raw(),
                           &sends_[sent_ % kWindow]));
    }
    while (freed_ < sent_ && is_over(sends_[freed_ % kWindow])) {
      ++freed_;
    }
  }

  void receive() {
    auto& engine = *owner_.engine_;
    for (; posted_ < std::min(coming_.size() * pieces_, landed_ + kWindow); ++posted_) {
      MOEVAR_MPI(MPI_Irecv(buffer(1, posted_), static_cast<int>(size(posted_)), MPI_BYTE,
                           coming_[posted_ / pieces_].peer, kTag, owner_.comm_.raw(),
                           &receives_[posted_ % kWindow]));
    }
    for (; arrived_ < posted_ && is_over(receives_[arrived_ % kWindow]); ++arrived_) {
      const Coming& blob = coming_[arrived_ / pieces_];
      const auto& stream = *streams_[blob.lane];
      engine.copy(blob.data + offset(arrived_), buffer(1, arrived_), size(arrived_), stream);
      engine.mark(point(1, arrived_), stream);
    }
    while (landed_ < arrived_ && engine.reached(point(1, landed_))) {
      ++landed_;
    }
  }

  StagedMigration& owner_;
  std::span<const Leaving> leaving_;
  std::span<const Coming> coming_;
  std::span<const cuda::Stream* const> streams_;
  std::size_t pieces_;  ///< of one expert's weights
  std::array<MPI_Request, kWindow> sends_{};
  std::array<MPI_Request, kWindow> receives_{};
  // pieces, counted over all moves, that have come so far
  std::size_t copied_ = 0;
  std::size_t sent_ = 0;
  std::size_t freed_ = 0;
  std::size_t posted_ = 0;
  std::size_t arrived_ = 0;
  std::size_t landed_ = 0;
};

StagedMigration::StagedMigration(const mpi::Communicator& comm, int lanes, std::size_t bytes,
                                 std::unique_ptr<CopyEngine> engine, Patience patience)
    : DeviceMigration(comm, lanes, bytes, std::move(engine), std::move(patience)) {
  make_points(2 * kWindow);
  if (comm.size() > 1) {
    buffer_ = engine_->host_memory(2 * kWindow * kPiece);
  }
}

void StagedMigration::travel(std::span<const Leaving> leaving, std::span<const Coming> coming,
                             std::span<const cuda::Stream* const> streams) {
  if (leaving.empty() && coming.empty()) {
    return;
  }
  Pipeline pipeline(*this, leaving, coming, streams);
  wait_until(
      "migration of weights", patience_, [&] { return pipeline.advance(); }, kWorkAdvice);
}

}  // namespace moevar::exchange
