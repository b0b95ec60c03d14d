#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "system/mpi.hpp"
#include "system/patience.hpp"

struct CUstream_st;

/// NCCL, loaded when first asked for: libnccl.so.2, or the file that the environment variable
/// MOEVAR_NCCL names. Needs no NCCL to compile.
namespace moevar::nccl {

/// A call failed: which one, and NCCL's own texts.
class NcclError : public LibraryError {
 public:
  using LibraryError::LibraryError;
};

/// Why NCCL cannot be used; empty where it can.
std::string why_unavailable();

/// As ncclGetVersion() gives it: 22809 is 2.28.9. Throws EnvironmentError without NCCL.
int version();
std::string version_text(int version);

/// Whether several ranks may share a GPU: NCCL 2.30.3 or later, told so by
/// NCCL_MULTI_RANK_GPU_ENABLE=1. False without NCCL.
bool shares_gpus();

/// Why these ranks cannot talk over NCCL, with what to do; nullopt: they can. `gpus`: a UUID per
/// rank. Pure.
std::optional<std::string> sharing_problem(std::span<const std::string> gpus, int version,
                                           bool shares_gpus);

struct Outgoing {
  const void* data = nullptr;
  std::size_t bytes = 0;
  int peer = 0;
};
struct Incoming {
  void* data = nullptr;
  std::size_t bytes = 0;
  int peer = 0;
};

/// NCCL between the current GPUs of all ranks. It never blocks for longer than its patience: a
/// peer that does not come, or a failure that NCCL reports by itself, becomes an error.
class Communicator {
 public:
  /// `gpu`: the UUID of this rank's. `most_blocks`: thread blocks, each on a multiprocessor, that a
  /// transfer has at most; 0: what NCCL finds fit. Throws EnvironmentError without NCCL, with one
  /// that cannot be limited so (before 2.17) or where ranks share a GPU that it lets nobody share,
  /// NcclError where it fails. Collective.
  Communicator(const mpi::Communicator& ranks, const std::string& gpu,
               std::chrono::duration<double> limit, int most_blocks = 0);
  /// Collective; after a failure not, and what is under way is given up. Leaves NCCL alone while an
  /// exception ends the process.
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  /// Queues messages between ranks as one, so that none waits for another; all ranks name the same
  /// ones, those between two ranks in the same order. None may be of 0 bytes.
  void transfer(std::span<const Outgoing> out, std::span<const Incoming> in, CUstream_st* stream);

  /// Waits until `done` says so, or NCCL that it failed. Not collective.
  void wait(const char* what, const std::function<bool()>& done);

 private:
  using Handle = void*;
  /// Waits for a call that may go on in the background.
  void finish(const char* call, int code);
  void check(const char* call, int code);
  /// Whether nothing goes on in the background.
  bool settled(const char* call);

  Handle handle_ = nullptr;
  Patience patience_;
  bool failed_ = false;
};

}  // namespace moevar::nccl
