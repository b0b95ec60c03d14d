#pragma once

#include <cstddef>
#include <vector>

#include "exchange/exchange.hpp"
#include "system/mpi.hpp"

namespace moevar::exchange {

/// How many rows go to or come from every rank, and where they begin, as MPI 3 wants them.
struct RowLayout {
  std::vector<int> count;
  std::vector<int> begin;
  std::int64_t total = 0;
};

/// Sums `rows`, [ranks][slots], over the slots of each rank; `layout` has room for all ranks.
/// Throws EnvironmentError where there are more rows than an int can count.
void lay_out(std::span<const std::int64_t> rows, RowLayout& layout);

/// Through MPI_Alltoallv, in units of rows, so that bytes beyond 2^31 are no limit.
class MpiExchange final : public Exchange {
 public:
  /// `comm` outlives the object. Rows hold `row_length` floats. Collective.
  MpiExchange(const mpi::Communicator& comm, std::size_t row_length, std::size_t slots);
  ~MpiExchange() override;
  MpiExchange(const MpiExchange&) = delete;
  MpiExchange& operator=(const MpiExchange&) = delete;
  MpiExchange(MpiExchange&&) = delete;
  MpiExchange& operator=(MpiExchange&&) = delete;

  std::int64_t dispatch(std::span<const float> rows, std::span<const std::int64_t> rows_to,
                        std::span<std::int64_t> rows_from, std::span<float> received) override;
  void combine(std::span<const float> results, std::span<float> returned) override;

 private:
  const mpi::Communicator& comm_;
  std::size_t row_length_;
  int slots_;
  MPI_Datatype row_ = MPI_DATATYPE_NULL;
  RowLayout out_;
  RowLayout in_;
};

}  // namespace moevar::exchange
