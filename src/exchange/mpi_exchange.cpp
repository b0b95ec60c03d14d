#include "exchange/mpi_exchange.hpp"

#include <limits>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::exchange {

void lay_out(std::span<const std::int64_t> rows, RowLayout& layout) {
  const std::size_t slots = rows.size() / layout.count.size();
  layout.total = 0;
  for (std::size_t rank = 0; rank < layout.count.size(); ++rank) {
    std::int64_t count = 0;
    for (const auto slot_rows : rows.subspan(rank * slots, slots)) {
      count += slot_rows;
    }
    if (layout.total + count > std::numeric_limits<int>::max()) {
      throw EnvironmentError(
          fmt::format("all-to-all of over {} rows on one rank: MPI counts rows in an int; fewer "
                      "tokens per device are needed",
                      std::numeric_limits<int>::max()));
    }
    layout.begin[rank] = static_cast<int>(layout.total);
    layout.count[rank] = static_cast<int>(count);
    layout.total += count;
  }
}

MpiExchange::MpiExchange(const mpi::Communicator& comm, std::size_t row_length, std::size_t slots)
    : comm_(comm), row_length_(row_length), slots_(static_cast<int>(slots)) {
  const auto ranks = static_cast<std::size_t>(comm.size());
  for (RowLayout* layout : {&out_, &in_}) {
    layout->count.resize(ranks);
    layout->begin.resize(ranks);
  }
  MOEVAR_MPI(MPI_Type_contiguous(static_cast<int>(row_length), MPI_FLOAT, &row_));
  MOEVAR_MPI(MPI_Type_commit(&row_));
}

MpiExchange::~MpiExchange() {
  if (mpi::running()) {
    MPI_Type_free(&row_);
  }
}

std::int64_t MpiExchange::dispatch(std::span<const float> rows,
                                   std::span<const std::int64_t> rows_to,
                                   std::span<std::int64_t> rows_from, std::span<float> received) {
  MOEVAR_MPI(MPI_Alltoall(rows_to.data(), slots_, MPI_INT64_T, rows_from.data(), slots_,
                          MPI_INT64_T, comm_.raw()));
  lay_out(rows_to, out_);
  lay_out(rows_from, in_);
  if (static_cast<std::size_t>(in_.total) * row_length_ > received.size()) {
    throw CheckError(fmt::format("dispatch: {} rows arrived, room is for {}", in_.total,
                                 received.size() / row_length_));
  }
  MOEVAR_MPI(MPI_Alltoallv(rows.data(), out_.count.data(), out_.begin.data(), row_, received.data(),
                           in_.count.data(), in_.begin.data(), row_, comm_.raw()));
  return in_.total;
}

void MpiExchange::combine(std::span<const float> results, std::span<float> returned) {
  MOEVAR_MPI(MPI_Alltoallv(results.data(), in_.count.data(), in_.begin.data(), row_,
                           returned.data(), out_.count.data(), out_.begin.data(), row_,
                           comm_.raw()));
}

}  // namespace moevar::exchange
