#include "run/cpu_migration.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "timeline/clock.hpp"

namespace moevar::run {

namespace {

// Between two ranks messages of one tag stay in order, and both go through the moves in one order.
constexpr int kWeights = 91;
constexpr int kChecksum = 92;

/// Weights that are on their way to this device.
struct Incoming {
  placement::Move move;
  std::shared_ptr<fleet::ExpertWeights> weights;
  std::uint64_t sent_checksum = 0;
};

/// The migration of one device, one layer at a time.
class Mover {
 public:
  Mover(const mpi::Communicator& devices, fleet::CpuDevice& device)
      : comm_(devices), device_(device) {}

  /// `moves` are this layer's; where there are none, slots may still have changed places.
  void move_layer(int layer, std::span<const placement::Move> moves,
                  const placement::Placement& to) {
    incoming_.clear();
    outgoing_checksums_.clear();
    for (const auto& move : moves) {
      if (move.to_device == comm_.rank()) {
        incoming_.push_back({move, device_.take_spare(), 0});
      }
      if (move.from_device == comm_.rank()) {
        outgoing_checksums_.push_back(device_.find(move.layer, move.expert)->weights->checksum());
      }
    }
    comm_.barrier();
    const Nanoseconds start = timeline::monotonic_raw_ns();
    transfer(moves);
    transfer_ns_ += timeline::monotonic_raw_ns() - start;
    if (verify()) {
      put_in_place(layer, to);
    }
  }

  [[nodiscard]] double transfer_ms() const { return 1e-6 * static_cast<double>(transfer_ns_); }
  /// What was wrong first; empty where nothing was.
  [[nodiscard]] const std::string& failure() const { return failure_; }

 private:
  void transfer(std::span<const placement::Move> moves) {
    std::vector<MPI_Request> requests;
    const auto add = [&] { return &requests.emplace_back(MPI_REQUEST_NULL); };
    for (Incoming& in : incoming_) {
      const auto values = in.weights->values();
      MOEVAR_MPI(MPI_Irecv(values.data(), static_cast<int>(values.size()), MPI_FLOAT,
                           in.move.from_device, kWeights, comm_.raw(), add()));
      MOEVAR_MPI(MPI_Irecv(&in.sent_checksum, 1, MPI_UINT64_T, in.move.from_device, kChecksum,
                           comm_.raw(), add()));
    }
    std::size_t sent = 0;
    for (const auto& move : moves) {
      if (move.from_device == comm_.rank()) {
        const auto values = device_.find(move.layer, move.expert)->weights->values();
        MOEVAR_MPI(MPI_Isend(values.data(), static_cast<int>(values.size()), MPI_FLOAT,
                             move.to_device, kWeights, comm_.raw(), add()));
        MOEVAR_MPI(MPI_Isend(&outgoing_checksums_[sent++], 1, MPI_UINT64_T, move.to_device,
                             kChecksum, comm_.raw(), add()));
      }
    }
    MOEVAR_MPI(
        MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE));
  }

  bool verify() {
    return std::ranges::all_of(incoming_, [&](const Incoming& in) { return is_right(in); });
  }

  /// Whether what arrived is what was sent and what the seed says; notes the first that is not.
  bool is_right(const Incoming& in) {
    const auto& move = in.move;
    const std::uint64_t arrived = in.weights->checksum();
    const std::uint64_t expected = device_.expected_checksum(move.layer, move.expert);
    const bool right = arrived == in.sent_checksum && arrived == expected;
    if (!right && failure_.empty()) {
      failure_ = fmt::format(
          "migration: layer {}, expert {}, device {} to {}: the checksum of its weights was "
          "{:016x} "
          "when sent and {:016x} on arrival; the seed gives {:016x}",
          move.layer, move.expert, move.from_device, move.to_device, in.sent_checksum, arrived,
          expected);
    }
    return right;
  }

  void put_in_place(int layer, const placement::Placement& to) {
    std::vector<fleet::CpuDevice::Slot> slots;
    for (int slot = 0; slot < device_.slots(); ++slot) {
      const int global = comm_.rank() * device_.slots() + slot;
      const auto expert = to.expert_of_slot(layer, global);
      // an expert comes once, for all of the device's slots that have it
      const auto arrived =
          std::ranges::find(incoming_, expert, [](const Incoming& in) { return in.move.expert; });
      if (arrived != incoming_.end()) {
        slots.push_back({expert, arrived->weights});
      } else {
        slots.push_back(*device_.find(layer, expert));
      }
    }
    incoming_.clear();  // the slots alone hold the weights now
    device_.place(layer, std::move(slots));
  }

  const mpi::Communicator& comm_;
  fleet::CpuDevice& device_;
  std::vector<Incoming> incoming_;
  std::vector<std::uint64_t> outgoing_checksums_;
  Nanoseconds transfer_ns_ = 0;
  std::string failure_;
};

std::vector<placement::Move> of_layer(const std::vector<placement::Move>& moves, int layer) {
  std::vector<placement::Move> mine;
  std::ranges::copy_if(moves, std::back_inserter(mine),
                       [&](const placement::Move& move) { return move.layer == layer; });
  return mine;
}

}  // namespace

Migration move_experts(const mpi::Communicator& devices, fleet::CpuDevice& device,
                       const placement::Placement& from, const placement::Placement& to) {
  const auto moves = placement::moves_between(from, to);
  Mover mover(devices, device);
  for (int layer = 0; layer < to.layers(); ++layer) {
    mover.move_layer(layer, of_layer(moves, layer), to);
  }
  if (!mover.failure().empty()) {
    throw CheckError(mover.failure());
  }
  const auto moved = static_cast<std::int64_t>(moves.size());
  return {moved, moved * static_cast<std::int64_t>(fleet::expert_bytes(device.shape())),
          mover.transfer_ms()};
}

}  // namespace moevar::run
