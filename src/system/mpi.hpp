#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <mpi.h>

#include "base/error.hpp"
#include "system/whereabouts.hpp"

/// MPI, one thin throwing function per call. Everything here is collective over the communicator
/// unless its comment says otherwise. A failed call throws LibraryError.
namespace moevar::mpi {

/// Throws LibraryError with MPI's own text when `code` is no success. MOEVAR_MPI(call) is the usual
/// form.
void check(int code, const char* call, SourceLocation where = SourceLocation::current());
/// In it a watchdog sees that this process may wait for others.
#define MOEVAR_MPI(call) ::moevar::mpi::check((::moevar::whereabouts::InCall(#call), (call)), #call)

/// MPI_Init_thread ... MPI_Finalize. Errors are returned, not fatal. One per process.
///
/// MPI_Finalize waits for all ranks, so an exception on its way out does not call it: whoever
/// catches it knows whether all ranks failed alike, finalize(), or this one alone, abort().
/// Communicators are left alone then for the same reason.
class Session {
 public:
  Session(int* argc, char*** argv);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

/// Whether MPI was started and not yet ended in this process.
bool running() noexcept;
/// MPI_Finalize where MPI runs. Collective.
void finalize() noexcept;
/// Ends all ranks with that exit status; returns only where MPI does not run. Where MPI itself
/// hangs, the process ends alone after 5 s, and the launcher ends the others.
void abort(int status) noexcept;

/// The process ends with that status in 5 s, whatever hangs until then; needs no memory.
void end_by_alarm(int status) noexcept;

/// "Open MPI v4.1.4"; "unknown" where the library does not tell. Not collective.
std::string library_version();
/// What threads may call MPI: "single", "funneled", "serialized" or "multiple". Not collective.
std::string thread_level();
/// Whether MPI takes pointers to GPU memory; nullopt: it does not tell. Not collective.
std::optional<bool> cuda_aware();

/// A communicator that this object owns, or a view of MPI_COMM_WORLD.
class Communicator {
 public:
  static Communicator world();

  ~Communicator();
  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&& other) noexcept;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return size_; }
  [[nodiscard]] bool is_root() const noexcept { return rank_ == 0; }
  [[nodiscard]] MPI_Comm raw() const noexcept { return comm_; }

  /// Ranks with equal colour share the new communicator; `colour` < 0 gets an empty one (size 0).
  [[nodiscard]] Communicator split(int colour) const;
  /// The ranks of this rank's node (shared memory).
  [[nodiscard]] Communicator split_by_node() const;

  void barrier() const;
  /// The same, but a rank that waits leaves its core idle; up to a tenth of a millisecond later.
  void idle_barrier() const;

  void broadcast(std::string& text, int root = 0) const;
  void broadcast(std::span<double> values, int root = 0) const;
  void broadcast(std::span<std::int32_t> values, int root = 0) const;
  void broadcast(std::span<std::uint32_t> values, int root = 0) const;
  void broadcast(std::span<std::int64_t> values, int root = 0) const;

  /// In place, element by element.
  void all_reduce_max(std::span<std::int64_t> values) const;
  void all_reduce_min(std::span<std::int64_t> values) const;
  void all_reduce_sum(std::span<std::int64_t> values) const;
  void all_reduce_max(std::span<double> values) const;

  /// One text per rank, in rank order, on every rank.
  [[nodiscard]] std::vector<std::string> all_gather(const std::string& mine) const;
  [[nodiscard]] std::vector<double> all_gather(double mine) const;
  [[nodiscard]] std::vector<std::int64_t> all_gather(std::int64_t mine) const;

  /// Rank r's `mine` becomes the r-th piece of `all`, which has room for all of them, on every
  /// rank.
  void all_gather(std::span<const double> mine, std::span<double> all) const;
  void all_gather(std::span<const std::uint32_t> mine, std::span<std::uint32_t> all) const;
  void all_gather(std::span<const std::int64_t> mine, std::span<std::int64_t> all) const;

  /// Rank r's `mine` becomes the r-th piece of `all` on rank 0; `all` is empty elsewhere.
  void gather(std::span<const std::uint32_t> mine, std::span<std::uint32_t> all) const;
  void gather(std::span<const std::int64_t> mine, std::span<std::int64_t> all) const;
  void gather(std::span<const double> mine, std::span<double> all) const;

 private:
  Communicator(MPI_Comm comm, bool owned);
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 0;
  bool owned_ = false;
};

/// An error that every rank throws alike: all are here, none waits, and the run can end in good
/// order. Any other error is one rank's own, and ends with MPI_Abort.
class SharedError : public Error {
 public:
  using Error::Error;
};

/// Runs `work` on rank 0 alone and lets every rank share its fate: when it throws there, every rank
/// throws the same SharedError, so that no rank is left waiting.
void on_root(const Communicator& comm, const std::function<void()>& work);

/// Runs `work` on every rank; when it throws on any, every rank throws the error of the lowest such
/// rank.
void on_all(const Communicator& comm, const std::function<void()>& work);

}  // namespace moevar::mpi
