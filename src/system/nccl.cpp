#include "system/nccl.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <dlfcn.h>
#include <exception>
#include <limits>

#include <fmt/format.h>

namespace moevar::nccl {

namespace {

// Facts of NCCL's binary interface (nccl.h of 2.14 to 2.28).
constexpr int kSuccess = 0;
constexpr int kInProgress = 7;
constexpr int kUint8 = 1;
constexpr int kFirstThatShares = 23003;

struct UniqueId {
  std::array<char, 128> bytes;
};

constexpr int kFirstWithLimits = 21700;
constexpr int kNotSet = std::numeric_limits<int>::min();

/// The part of ncclConfig_t that 2.14 knew; later ones take what it lacks as not set.
struct Config {
  std::size_t size = sizeof(Config);
  unsigned magic = 0xCAFEBEEF;
  unsigned version = 21400;
  int blocking = 0;
};

/// The part that 2.17 knew.
struct LimitedConfig {
  std::size_t size = sizeof(LimitedConfig);
  unsigned magic = 0xCAFEBEEF;
  unsigned version = kFirstWithLimits;
  int blocking = 0;
  int cga_cluster_size = kNotSet;
  int min_blocks = kNotSet;
  int max_blocks = kNotSet;
  const char* net_name = nullptr;
};

struct Functions {
  int (*version)(int*) = nullptr;
  const char* (*error_string)(int) = nullptr;
  const char* (*last_error)(void*) = nullptr;
  int (*unique_id)(UniqueId*) = nullptr;
  int (*init)(void**, int, UniqueId, int, void*) = nullptr;
  int (*async_error)(void*, int*) = nullptr;
  int (*finalize)(void*) = nullptr;
  int (*destroy)(void*) = nullptr;
  int (*abort)(void*) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  int (*send)(const void*, std::size_t, int, int, void*, CUstream_st*) = nullptr;
  int (*receive)(void*, std::size_t, int, int, void*, CUstream_st*) = nullptr;
};

struct Library {
  Functions call;
  int version = 0;
  std::string problem;  ///< empty: ready

  Library() {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing in this program changes its environment
    const char* named = std::getenv("MOEVAR_NCCL");
    const char* file = named != nullptr && *named != '\0' ? named : "libnccl.so.2";
    void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      // NOLINTNEXTLINE(concurrency-mt-unsafe): dlerror is of this thread
      problem =
          fmt::format("NCCL cannot be loaded: {} (MOEVAR_NCCL names another file)", dlerror());
      return;
    }
    if (!load(library)) {
      problem = fmt::format("{} is no NCCL of 2.14 or later", file);
    } else if (const int code = call.version(&version); code != kSuccess) {
      problem = fmt::format("ncclGetVersion: {}", call.error_string(code));
    }
  }

 private:
  bool load(void* library) {
    bool all = true;
    const auto take = [&](auto*& function, const char* name) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      all = all && function != nullptr;
    };
    take(call.version, "ncclGetVersion");
    take(call.error_string, "ncclGetErrorString");
    take(call.last_error, "ncclGetLastError");
    take(call.unique_id, "ncclGetUniqueId");
    take(call.init, "ncclCommInitRankConfig");
    take(call.async_error, "ncclCommGetAsyncError");
    take(call.finalize, "ncclCommFinalize");
    take(call.destroy, "ncclCommDestroy");
    take(call.abort, "ncclCommAbort");
    take(call.group_start, "ncclGroupStart");
    take(call.group_end, "ncclGroupEnd");
    take(call.send, "ncclSend");
    take(call.receive, "ncclRecv");
    return all;
  }
};

const Library& library() {
  static const Library only;
  return only;
}

const Library& usable_library() {
  if (!library().problem.empty()) {
    throw EnvironmentError(library().problem);
  }
  return library();
}

constexpr const char* kFailedAdvice =
    "NCCL_DEBUG=INFO says more, and the staged exchange needs no NCCL";
constexpr const char* kHungAdvice =
    "another rank did not come, or the link between them is broken; NCCL_DEBUG=INFO shows where "
    "NCCL stands, and the staged exchange needs no NCCL";

/// NCCL's text for a result, and what it noted last, in one line.
std::string text_of(int code, void* communicator) {
  std::string text = library().call.error_string(code);
  if (const char* last = library().call.last_error(communicator); last != nullptr) {
    const std::string_view noted(last);
    text += noted.empty() ? "" : fmt::format(": {}", noted.substr(0, noted.find('\n')));
  }
  return text;
}

UniqueId agree_on_id(const mpi::Communicator& ranks) {
  std::string id(sizeof(UniqueId), '\0');
  mpi::on_root(ranks, [&] {
    UniqueId mine{};
    if (const int code = usable_library().call.unique_id(&mine); code != kSuccess) {
      throw NcclError("ncclGetUniqueId", text_of(code, nullptr));
    }
    std::ranges::copy(mine.bytes, id.begin());
  });
  ranks.broadcast(id);
  UniqueId agreed{};
  std::ranges::copy(id, agreed.bytes.begin());
  return agreed;
}

}  // namespace

std::string why_unavailable() { return library().problem; }

int version() { return usable_library().version; }

std::string version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

bool shares_gpus() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing in this program changes its environment
  const char* enabled = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  return library().problem.empty() && library().version >= kFirstThatShares && enabled != nullptr &&
         std::string_view(enabled) == "1";
}

std::optional<std::string> sharing_problem(std::span<const std::string> gpus, int version,
                                           bool shares_gpus) {
  for (std::size_t rank = 1; rank < gpus.size() && !shares_gpus; ++rank) {
    const auto before = gpus.first(rank);
    const auto same = std::ranges::find(before, gpus[rank]);
    if (same != before.end()) {
      return fmt::format(
          "ranks {} and {} share {}: NCCL {} has one rank per GPU; from 2.30.3 on "
          "NCCL_MULTI_RANK_GPU_ENABLE=1 allows more, and the staged exchange needs no NCCL",
          same - before.begin(), rank, gpus[rank], version_text(version));
    }
  }
  return std::nullopt;
}

Communicator::Communicator(const mpi::Communicator& ranks, const std::string& gpu,
                           std::chrono::duration<double> limit, int most_blocks)
    : patience_{describe_process(ranks.rank(), gpu), limit} {
  mpi::on_all(ranks, [most_blocks] {
    if (const int found = usable_library().version; most_blocks > 0 && found < kFirstWithLimits) {
      throw EnvironmentError(fmt::format(
          "NCCL {} cannot leave multiprocessors to others: 2.17 or later can (fleet.overlap)",
          version_text(found)));
    }
  });
  if (const auto problem = sharing_problem(ranks.all_gather(gpu), version(), shares_gpus())) {
    throw mpi::SharedError(ExitStatus::environment, *problem);
  }
  const UniqueId id = agree_on_id(ranks);
  Config plain;
  LimitedConfig limited;
  limited.max_blocks = most_blocks;
  void* config = most_blocks > 0 ? static_cast<void*>(&limited) : &plain;
  const int code = library().call.init(&handle_, ranks.size(), id, ranks.rank(), config);
  try {
    finish("ncclCommInitRankConfig", code);
  } catch (...) {
    if (handle_ != nullptr) {
      library().call.abort(handle_);
    }
    throw;
  }
}

Communicator::~Communicator() {
  if (std::uncaught_exceptions() > 0) {
    return;  // the process is on its way out; a lost GPU or peer would be waited for
  }
  if (failed_) {
    library().call.abort(handle_);
    return;
  }
  try {
    finish("ncclCommFinalize", library().call.finalize(handle_));
    library().call.destroy(handle_);
  } catch (...) {
    library().call.abort(handle_);
  }
}

void Communicator::check(const char* call, int code) {
  if (code != kSuccess && code != kInProgress) {
    failed_ = true;
    throw NcclError(
        call, fmt::format("{} ({}; {})", text_of(code, handle_), patience_.who, kFailedAdvice));
  }
}

bool Communicator::settled(const char* call) {
  int state = kSuccess;
  check("ncclCommGetAsyncError", library().call.async_error(handle_, &state));
  check(call, state);
  return state == kSuccess;
}

void Communicator::finish(const char* call, int code) {
  check(call, code);
  if (code == kInProgress) {
    wait(call, [] { return true; });
  }
}

void Communicator::wait(const char* what, const std::function<bool()>& done) {
  try {
    wait_until(
        what, patience_, [&] { return settled(what) && done(); }, kHungAdvice);
  } catch (...) {
    failed_ = true;
    throw;
  }
}

void Communicator::transfer(std::span<const Outgoing> out, std::span<const Incoming> in,
                            CUstream_st* stream) {
  const Functions& call = library().call;
  check("ncclGroupStart", call.group_start());
  const auto add = [&](const char* name, int code) {
    if (code != kSuccess && code != kInProgress) {
      call.group_end();  // nothing can be given up while a group is open
    }
    check(name, code);
  };
  for (const auto& [data, bytes, peer] : out) {
    add("ncclSend", call.send(data, bytes, kUint8, peer, handle_, stream));
  }
  for (const auto& [data, bytes, peer] : in) {
    add("ncclRecv", call.receive(data, bytes, kUint8, peer, handle_, stream));
  }
  finish("ncclGroupEnd", call.group_end());
}

}  // namespace moevar::nccl
