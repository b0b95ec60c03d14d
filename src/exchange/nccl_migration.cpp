#include "exchange/nccl_migration.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "system/cuda.hpp"

namespace moevar::exchange {

NcclMigration::NcclMigration(const mpi::Communicator& comm, nccl::Communicator& nccl,
                             std::size_t bytes, std::unique_ptr<CopyEngine> engine,
                             Patience patience)
    : DeviceMigration(comm, 1, bytes, std::move(engine), std::move(patience)), nccl_(nccl) {
  make_points(0);
}

void NcclMigration::travel(std::span<const Leaving> leaving, std::span<const Coming> coming,
                           std::span<const cuda::Stream* const> streams) {
  std::vector<nccl::Outgoing> out(leaving.size());
  std::ranges::transform(leaving, out.begin(), [&](const Leaving& piece) {
    return nccl::Outgoing{piece.data, bytes_, piece.peer};
  });
  std::vector<nccl::Incoming> in(coming.size());
  std::ranges::transform(coming, in.begin(), [&](const Coming& piece) {
    return nccl::Incoming{piece.data, bytes_, piece.peer};
  });
  if (!out.empty() || !in.empty()) {
    nccl_.transfer(out, in, streams.front()->raw());
  }
}

}  // namespace moevar::exchange
