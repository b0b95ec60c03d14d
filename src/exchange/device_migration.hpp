#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "exchange/copy_engine.hpp"
#include "system/mpi.hpp"
#include "system/patience.hpp"

namespace moevar::exchange {

/// An expert's weights, in one piece, on their way from one device to another.
struct WeightMove {
  int from_device = 0;
  int to_device = 0;
  const void* source = nullptr;  ///< used by the rank of from_device alone
  void* target = nullptr;        ///< used by the rank of to_device alone
};

/// Sends weights between devices. Device d is lane d % lanes of rank d / lanes.
class DeviceMigration {
 public:
  /// `comm` outlives the object. Every piece has `bytes`. Collective.
  DeviceMigration(const mpi::Communicator& comm, int lanes, std::size_t bytes,
                  std::unique_ptr<CopyEngine> engine, Patience patience);
  virtual ~DeviceMigration() = default;
  DeviceMigration(const DeviceMigration&) = delete;
  DeviceMigration& operator=(const DeviceMigration&) = delete;
  DeviceMigration(DeviceMigration&&) = delete;
  DeviceMigration& operator=(DeviceMigration&&) = delete;

  /// Every rank names the same moves in the same order; no target is another move's source or
  /// target. `streams`, [lanes]: what they are given later finds the weights there, and may write
  /// to the sources. Throws EnvironmentError where a library fails or the time is up. Collective.
  void move(std::span<const WeightMove> moves, std::span<const cuda::Stream* const> streams);

  /// How weights travel between ranks: "staged" or "nccl".
  [[nodiscard]] virtual std::string_view path() const noexcept = 0;

 protected:
  struct Leaving {
    const std::byte* data = nullptr;
    std::size_t lane = 0;
    int peer = 0;  ///< rank
  };
  struct Coming {
    std::byte* data = nullptr;
    std::size_t lane = 0;
    int peer = 0;
  };
  /// Sends between ranks, in the order of the moves. Points from first_point() on are for its use.
  virtual void travel(std::span<const Leaving> leaving, std::span<const Coming> coming,
                      std::span<const cuda::Stream* const> streams) = 0;
  [[nodiscard]] std::size_t first_point() const noexcept { return 2 * lanes_; }
  /// How many points travel() uses; called once, after construction.
  void make_points(std::size_t count) { engine_->make_points(first_point() + count); }

  const mpi::Communicator& comm_;
  std::size_t lanes_;
  std::size_t bytes_;
  std::unique_ptr<CopyEngine> engine_;
  Patience patience_;

 private:
  /// From lane to lane of this rank.
  struct Staying {
    const void* source = nullptr;
    void* target = nullptr;
    std::size_t from_lane = 0;
    std::size_t to_lane = 0;
  };
  void copy_staying(std::span<const cuda::Stream* const> streams);

  std::vector<Leaving> leaving_;
  std::vector<Coming> coming_;
  std::vector<Staying> staying_;
};

/// Through the host in pieces, several at a time, so that copies and messages overlap. Waits for
/// the GPU.
class StagedMigration final : public DeviceMigration {
 public:
  StagedMigration(const mpi::Communicator& comm, int lanes, std::size_t bytes,
                  std::unique_ptr<CopyEngine> engine, Patience patience);
  [[nodiscard]] std::string_view path() const noexcept override { return "staged"; }

 private:
  class Pipeline;
  void travel(std::span<const Leaving> leaving, std::span<const Coming> coming,
              std::span<const cuda::Stream* const> streams) override;

  std::shared_ptr<std::byte> buffer_;  ///< [2][window][piece]: leaving, coming
};

}  // namespace moevar::exchange
