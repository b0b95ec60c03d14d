#pragma once

#include "exchange/device_migration.hpp"
#include "system/nccl.hpp"

namespace moevar::exchange {

/// Over NCCL, all of a call's moves as one group. One lane per rank. Only queues work. Part of
/// builds with CUDA.
class NcclMigration final : public DeviceMigration {
 public:
  /// `nccl` has the ranks of `comm` and outlives the object.
  NcclMigration(const mpi::Communicator& comm, nccl::Communicator& nccl, std::size_t bytes,
                std::unique_ptr<CopyEngine> engine, Patience patience);
  [[nodiscard]] std::string_view path() const noexcept override { return "nccl"; }

 private:
  void travel(std::span<const Leaving> leaving, std::span<const Coming> coming,
              std::span<const cuda::Stream* const> streams) override;

  nccl::Communicator& nccl_;
};

}  // namespace moevar::exchange
