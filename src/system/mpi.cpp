#include "system/mpi.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <limits>
#include <numeric>
#include <optional>
#include <thread>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>  // needs mpi.h before it
#endif

namespace moevar::mpi {

void check(int code, const char* call, SourceLocation where) {
  if (code == MPI_SUCCESS) {
    return;
  }
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw LibraryError(call, std::string(text.data(), static_cast<std::size_t>(length)), where);
}

Session::Session(int* argc, char*** argv) {
  int provided = 0;
  MOEVAR_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
  MOEVAR_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
}

Session::~Session() {
  if (std::uncaught_exceptions() == 0) {
    finalize();
  }
}

bool running() noexcept {
  int started = 0;
  int finished = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&finished);
  return started != 0 && finished == 0;
}

void finalize() noexcept {
  if (running()) {
    MPI_Finalize();
  }
}

namespace {

std::atomic<int> last_status{1};
static_assert(std::atomic<int>::is_always_lock_free);

}  // namespace

void end_by_alarm(int status) noexcept {
  constexpr unsigned kSeconds = 5;
  last_status = status;
  struct sigaction action {};
  action.sa_handler = [](int) { ::_exit(last_status); };
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGALRM, &action, nullptr);
  sigset_t alone{};
  sigemptyset(&alone);
  sigaddset(&alone, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &alone, nullptr);
  ::alarm(kSeconds);
}

void abort(int status) noexcept {
  if (running()) {
    end_by_alarm(status);  // without memory MPI_Abort may not come to an end
    MPI_Abort(MPI_COMM_WORLD, status);
  }
}

std::string library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS) {
    return "unknown";
  }
  // "Open MPI v4.1.4, package: Debian OpenMPI, ident: ...": what follows the first comma is long
  const std::string whole(text.data(), static_cast<std::size_t>(length));
  return whole.substr(0, whole.find_first_of(",\n"));
}

std::string thread_level() {
  int level = MPI_THREAD_SINGLE;
  MOEVAR_MPI(MPI_Query_thread(&level));
  switch (level) {
    case MPI_THREAD_SINGLE:
      return "single";
    case MPI_THREAD_FUNNELED:
      return "funneled";
    case MPI_THREAD_SERIALIZED:
      return "serialized";
    default:
      return "multiple";
  }
}

std::optional<bool> cuda_aware() {
#ifdef MPIX_CUDA_AWARE_SUPPORT
  return MPIX_Query_cuda_support() == 1;
#else
  return std::nullopt;
#endif
}

Communicator::Communicator(MPI_Comm comm, bool owned) : comm_(comm), owned_(owned) {
  if (comm_ != MPI_COMM_NULL) {
    MOEVAR_MPI(MPI_Comm_rank(comm_, &rank_));
    MOEVAR_MPI(MPI_Comm_size(comm_, &size_));
  }
}

Communicator Communicator::world() { return {MPI_COMM_WORLD, false}; }

Communicator::~Communicator() {
  if (owned_ && comm_ != MPI_COMM_NULL && std::uncaught_exceptions() == 0) {
    MPI_Comm_free(&comm_);
  }
}

Communicator::Communicator(Communicator&& other) noexcept
    : comm_(std::exchange(other.comm_, MPI_COMM_NULL)),
      rank_(other.rank_),
      size_(other.size_),
      owned_(std::exchange(other.owned_, false)) {}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  std::swap(comm_, other.comm_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  std::swap(owned_, other.owned_);
  return *this;
}

Communicator Communicator::split(int colour) const {
  MPI_Comm part = MPI_COMM_NULL;
  MOEVAR_MPI(MPI_Comm_split(comm_, colour < 0 ? MPI_UNDEFINED : colour, rank_, &part));
  return {part, true};
}

Communicator Communicator::split_by_node() const {
  MPI_Comm part = MPI_COMM_NULL;
  MOEVAR_MPI(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &part));
  return {part, true};
}

void Communicator::barrier() const { MOEVAR_MPI(MPI_Barrier(comm_)); }

void Communicator::idle_barrier() const {
  MPI_Request request = MPI_REQUEST_NULL;
  MOEVAR_MPI(MPI_Ibarrier(comm_, &request));
  for (int done = 0; done == 0;) {
    MOEVAR_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    if (done == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
}

namespace {

template <class T>
MPI_Datatype type_of();
template <>
MPI_Datatype type_of<double>() {
  return MPI_DOUBLE;
}
template <>
MPI_Datatype type_of<char>() {
  return MPI_CHAR;
}
template <>
MPI_Datatype type_of<std::int32_t>() {
  return MPI_INT32_T;
}
template <>
MPI_Datatype type_of<std::uint32_t>() {
  return MPI_UINT32_T;
}
template <>
MPI_Datatype type_of<std::int64_t>() {
  return MPI_INT64_T;
}

/// MPI 3 counts elements in an int; longer arrays go in pieces of this many.
constexpr std::size_t kPiece = std::size_t{1} << 28U;

template <class T, class Call>
void in_pieces(std::span<T> values, const Call& call) {
  for (std::size_t begin = 0; begin < values.size(); begin += kPiece) {
    const auto piece = values.subspan(begin, std::min(kPiece, values.size() - begin));
    call(piece.data(), static_cast<int>(piece.size()));
  }
}

template <class T>
void broadcast_values(std::span<T> values, int root, MPI_Comm comm) {
  in_pieces(values, [&](T* data, int count) {
    MOEVAR_MPI(MPI_Bcast(data, count, type_of<T>(), root, comm));
  });
}

template <class T>
void reduce_in_place(std::span<T> values, MPI_Op op, MPI_Comm comm) {
  in_pieces(values, [&](T* data, int count) {
    MOEVAR_MPI(MPI_Allreduce(MPI_IN_PLACE, data, count, type_of<T>(), op, comm));
  });
}

/// How many elements each rank holds, and where its piece begins.
struct Pieces {
  std::vector<std::int64_t> count;
  std::vector<std::int64_t> begin;
};

Pieces pieces_of(const Communicator& comm, std::size_t mine) {
  Pieces pieces{comm.all_gather(static_cast<std::int64_t>(mine)), {}};
  pieces.begin.resize(pieces.count.size());
  std::exclusive_scan(pieces.count.begin(), pieces.count.end(), pieces.begin.begin(),
                      std::int64_t{0});
  return pieces;
}

bool fits_int(const Pieces& pieces) {
  return pieces.begin.back() + pieces.count.back() <= std::numeric_limits<int>::max();
}

std::vector<int> to_int(const std::vector<std::int64_t>& values) {
  std::vector<int> narrow(values.size());
  std::ranges::transform(values, narrow.begin(), [](auto v) { return static_cast<int>(v); });
  return narrow;
}

template <class T>
void gather_pieces(const Communicator& comm, std::span<const T> mine, std::span<T> all) {
  constexpr int kTag = 71;
  const auto pieces = pieces_of(comm, mine.size());
  if (fits_int(pieces)) {
    MOEVAR_MPI(MPI_Gatherv(mine.data(), static_cast<int>(mine.size()), type_of<T>(), all.data(),
                           to_int(pieces.count).data(), to_int(pieces.begin).data(), type_of<T>(),
                           0, comm.raw()));
    return;
  }
  if (!comm.is_root()) {
    in_pieces(mine, [&](const T* data, int count) {
      MOEVAR_MPI(MPI_Send(data, count, type_of<T>(), 0, kTag, comm.raw()));
    });
    return;
  }
  std::ranges::copy(mine, all.begin());
  for (int rank = 1; rank < comm.size(); ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    in_pieces(all.subspan(static_cast<std::size_t>(pieces.begin[r]),
                          static_cast<std::size_t>(pieces.count[r])),
              [&](T* data, int count) {
                MOEVAR_MPI(
                    MPI_Recv(data, count, type_of<T>(), rank, kTag, comm.raw(), MPI_STATUS_IGNORE));
              });
  }
}

template <class T>
void all_gather_pieces(const Communicator& comm, std::span<const T> mine, std::span<T> all) {
  const auto pieces = pieces_of(comm, mine.size());
  for (int rank = 0; rank < comm.size() && !fits_int(pieces); ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    const auto piece = all.subspan(static_cast<std::size_t>(pieces.begin[r]),
                                   static_cast<std::size_t>(pieces.count[r]));
    if (rank == comm.rank()) {
      std::ranges::copy(mine, piece.begin());
    }
    broadcast_values(piece, rank, comm.raw());
  }
  if (fits_int(pieces)) {
    MOEVAR_MPI(MPI_Allgatherv(mine.data(), static_cast<int>(mine.size()), type_of<T>(), all.data(),
                              to_int(pieces.count).data(), to_int(pieces.begin).data(),
                              type_of<T>(), comm.raw()));
  }
}

}  // namespace

void Communicator::broadcast(std::string& text, int root) const {
  auto length = static_cast<std::int64_t>(text.size());
  broadcast_values(std::span(&length, 1), root, comm_);
  text.resize(static_cast<std::size_t>(length));
  broadcast_values(std::span<char>(text), root, comm_);
}
void Communicator::broadcast(std::span<double> values, int root) const {
  broadcast_values(values, root, comm_);
}
void Communicator::broadcast(std::span<std::int32_t> values, int root) const {
  broadcast_values(values, root, comm_);
}
void Communicator::broadcast(std::span<std::uint32_t> values, int root) const {
  broadcast_values(values, root, comm_);
}
void Communicator::broadcast(std::span<std::int64_t> values, int root) const {
  broadcast_values(values, root, comm_);
}

void Communicator::all_reduce_max(std::span<std::int64_t> values) const {
  reduce_in_place(values, MPI_MAX, comm_);
}
void Communicator::all_reduce_min(std::span<std::int64_t> values) const {
  reduce_in_place(values, MPI_MIN, comm_);
}
void Communicator::all_reduce_sum(std::span<std::int64_t> values) const {
  reduce_in_place(values, MPI_SUM, comm_);
}
void Communicator::all_reduce_max(std::span<double> values) const {
  reduce_in_place(values, MPI_MAX, comm_);
}

std::vector<std::int64_t> Communicator::all_gather(std::int64_t mine) const {
  std::vector<std::int64_t> all(static_cast<std::size_t>(size_));
  MOEVAR_MPI(MPI_Allgather(&mine, 1, MPI_INT64_T, all.data(), 1, MPI_INT64_T, comm_));
  return all;
}

std::vector<double> Communicator::all_gather(double mine) const {
  std::vector<double> all(static_cast<std::size_t>(size_));
  MOEVAR_MPI(MPI_Allgather(&mine, 1, MPI_DOUBLE, all.data(), 1, MPI_DOUBLE, comm_));
  return all;
}

std::vector<std::string> Communicator::all_gather(const std::string& mine) const {
  const auto lengths = all_gather(static_cast<std::int64_t>(mine.size()));
  std::vector<char> joined(
      static_cast<std::size_t>(std::reduce(lengths.begin(), lengths.end(), std::int64_t{0})));
  all_gather_pieces(*this, std::span<const char>(mine), std::span<char>(joined));
  std::vector<std::string> all;
  auto begin = joined.begin();
  for (const auto length : lengths) {
    all.emplace_back(begin, begin + length);
    begin += length;
  }
  return all;
}

void Communicator::all_gather(std::span<const double> mine, std::span<double> all) const {
  all_gather_pieces(*this, mine, all);
}
void Communicator::all_gather(std::span<const std::uint32_t> mine,
                              std::span<std::uint32_t> all) const {
  all_gather_pieces(*this, mine, all);
}
void Communicator::all_gather(std::span<const std::int64_t> mine,
                              std::span<std::int64_t> all) const {
  all_gather_pieces(*this, mine, all);
}
void Communicator::gather(std::span<const std::uint32_t> mine, std::span<std::uint32_t> all) const {
  gather_pieces(*this, mine, all);
}
void Communicator::gather(std::span<const std::int64_t> mine, std::span<std::int64_t> all) const {
  gather_pieces(*this, mine, all);
}
void Communicator::gather(std::span<const double> mine, std::span<double> all) const {
  gather_pieces(*this, mine, all);
}

namespace {

/// What `work` threw, if anything; errors that are not moevar's count as the environment's.
std::optional<Error> failure_of(const std::function<void()>& work) {
  try {
    work();
    return std::nullopt;
  } catch (const Error& error) {
    return error;
  } catch (const std::exception& error) {
    return Error(ExitStatus::environment, error.what());
  }
}

/// Every rank throws the error that rank `from` has.
[[noreturn]] void share_failure(const Communicator& comm, int from,
                                const std::optional<Error>& mine) {
  std::int32_t status = mine ? static_cast<std::int32_t>(mine->status()) : 0;
  std::string message = mine ? mine->what() : "";
  comm.broadcast(std::span(&status, 1), from);
  comm.broadcast(message, from);
  throw SharedError(static_cast<ExitStatus>(status), message);
}

}  // namespace

void on_root(const Communicator& comm, const std::function<void()>& work) {
  const auto failure = comm.is_root() ? failure_of(work) : std::nullopt;
  std::int64_t failed = failure ? 1 : 0;
  comm.broadcast(std::span(&failed, 1));
  if (failed != 0) {
    share_failure(comm, 0, failure);
  }
}

void on_all(const Communicator& comm, const std::function<void()>& work) {
  const auto failure = failure_of(work);
  std::int64_t first = failure ? comm.rank() : comm.size();
  comm.all_reduce_min(std::span(&first, 1));
  if (first < comm.size()) {
    share_failure(comm, static_cast<int>(first), failure);
  }
}

}  // namespace moevar::mpi
