#include <array>
#include <cstdlib>
#include <dlfcn.h>
#include <limits>
#include <string_view>
#include <vector>

#include <mpi.h>

/// NCCL's functions as moevar calls them, over MPI and on the host's memory: streams are names,
/// and what a group holds is done in the background, as NCCL's non-blocking communicators do it.
/// FAKE_NCCL in the environment makes it misbehave:
///
///     version 23003    ncclGetVersion gives that
///     refuse-init      initialising fails at once
///     fail-init        it fails in the background
///     hang-init        it never ends
///     blocks 16        it fails unless the config limits blocks to that many; 0: not at all
///     hang-group       groups never end
///     fail-later       the communicator fails once its first group is over
namespace {

#define EXPORT extern "C" __attribute__((visibility("default")))

constexpr int kSuccess = 0;
constexpr int kSystemError = 2;
constexpr int kInvalidArgument = 4;
constexpr int kInvalidUsage = 5;
constexpr int kRemoteError = 6;
constexpr int kInProgress = 7;
constexpr int kUint8 = 1;
constexpr int kTag = 17;

struct UniqueId {
  std::array<char, 128> bytes;
};

/// As 2.17 has it; a program made for 2.14 gives the first four alone.
struct Config {
  std::size_t size;
  unsigned magic;
  unsigned version;
  int blocking;
  int cga_cluster_size;
  int min_blocks;
  int max_blocks;
};
constexpr int kNotSet = std::numeric_limits<int>::min();

bool is_config(const Config& config) {
  const bool plain = config.magic == 0xCAFEBEEF && config.version == 21400 &&
                     config.blocking == 0 && config.size >= 20;
  const bool limited = config.magic == 0xCAFEBEEF && config.version == 21700 &&
                       config.blocking == 0 && config.size == 40 &&
                       config.cga_cluster_size == kNotSet && config.min_blocks == kNotSet &&
                       config.max_blocks > 0;
  return plain || limited;
}

int blocks_of(const Config& config) { return config.version < 21700 ? 0 : config.max_blocks; }

struct Message {
  bool sent;
  void* data;
  std::size_t bytes;
  int peer;
  const void* stream;
};

struct Communicator {
  MPI_Comm ranks = MPI_COMM_NULL;
  int polls = 3;  ///< so often it is still in progress
  bool hung = false;
  int failure = kSuccess;
  int later = kSuccess;  ///< becomes the failure when the group is over
  std::vector<MPI_Request> requests;
};

bool told(std::string_view what) {
  const char* text = std::getenv("FAKE_NCCL");
  return text != nullptr && std::string_view(text).substr(0, what.size()) == what;
}

/// The CUDA that stands beside it checks who uses which memory when, if that one is a stand-in too.
void tell_cuda(const void* stream, bool sent, const void* data, std::size_t bytes) {
  using Used =
      void (*)(const void*, const char*, const void*, std::size_t, const void*, std::size_t);
  static const auto used = reinterpret_cast<Used>(dlsym(RTLD_DEFAULT, "moevar_fake_cuda_used"));
  if (used != nullptr) {
    used(stream, sent ? "ncclSend" : "ncclRecv", data, sent ? bytes : 0, data, sent ? 0 : bytes);
  }
}

std::vector<Message> group;
Communicator* group_of = nullptr;
bool group_open = false;

int add(const Message& message, int type, Communicator* communicator) {
  if (!group_open || type != kUint8 || communicator == nullptr || message.bytes == 0) {
    return kInvalidArgument;
  }
  group_of = communicator;
  group.push_back(message);
  return kSuccess;
}

}  // namespace

EXPORT int ncclGetVersion(int* version) {
  *version = told("version ") ? std::atoi(std::getenv("FAKE_NCCL") + 8) : 22809;
  return kSuccess;
}

EXPORT const char* ncclGetErrorString(int code) {
  switch (code) {
    case kSuccess:
      return "no error";
    case kSystemError:
      return "unhandled system error";
    case kInvalidUsage:
      return "invalid usage";
    case kRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "another error";
  }
}

EXPORT const char* ncclGetLastError(void*) { return "noted by the stand-in\nand a second line"; }

EXPORT int ncclGetUniqueId(UniqueId* id) {
  id->bytes.fill('\0');
  id->bytes[0] = 'm';
  id->bytes[100] = 'v';
  return kSuccess;
}

EXPORT int ncclCommInitRankConfig(Communicator** made, int ranks, UniqueId id, int rank,
                                  const Config* config) {
  int size = 0;
  int mine = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(MPI_COMM_WORLD, &mine);
  if (id.bytes[0] != 'm' || id.bytes[100] != 'v' || size != ranks || mine != rank ||
      !is_config(*config)) {
    return kInvalidArgument;
  }
  if (told("blocks ") && std::atoi(std::getenv("FAKE_NCCL") + 7) != blocks_of(*config)) {
    return kInvalidArgument;
  }
  if (told("refuse-init")) {
    return kInvalidUsage;
  }
  *made = new Communicator;
  MPI_Comm_dup(MPI_COMM_WORLD, &(*made)->ranks);
  (*made)->hung = told("hang-init");
  (*made)->failure = told("fail-init") ? kSystemError : kSuccess;
  return kInProgress;
}

EXPORT int ncclCommGetAsyncError(Communicator* communicator, int* state) {
  *state = kInProgress;
  if (communicator->hung || --communicator->polls > 0) {
    return kSuccess;
  }
  int over = 0;
  MPI_Testall(static_cast<int>(communicator->requests.size()), communicator->requests.data(), &over,
              MPI_STATUSES_IGNORE);
  if (over != 0) {
    communicator->requests.clear();
    *state = communicator->failure;
    communicator->failure = communicator->later;
  }
  return kSuccess;
}

EXPORT int ncclGroupStart() {
  group.clear();
  group_open = true;
  return kSuccess;
}

EXPORT int ncclSend(const void* data, std::size_t bytes, int type, int peer,
                    Communicator* communicator, void* stream) {
  return add({true, const_cast<void*>(data), bytes, peer, stream}, type, communicator);
}

EXPORT int ncclRecv(void* data, std::size_t bytes, int type, int peer, Communicator* communicator,
                    void* stream) {
  return add({false, data, bytes, peer, stream}, type, communicator);
}

EXPORT int ncclGroupEnd() {
  group_open = false;
  if (group.empty()) {
    return kSuccess;
  }
  Communicator& communicator = *group_of;
  communicator.hung = told("hang-group");
  communicator.later = told("fail-later") ? kRemoteError : kSuccess;
  communicator.polls = 3;
  for (const auto& [sent, data, bytes, peer, stream] : group) {
    tell_cuda(stream, sent, data, bytes);
    auto& request = communicator.requests.emplace_back(MPI_REQUEST_NULL);
    const int count = static_cast<int>(bytes);
    if (sent) {
      MPI_Isend(data, count, MPI_BYTE, peer, kTag, communicator.ranks, &request);
    } else {
      MPI_Irecv(data, count, MPI_BYTE, peer, kTag, communicator.ranks, &request);
    }
  }
  return kInProgress;
}

EXPORT int ncclCommFinalize(Communicator*) { return kSuccess; }

EXPORT int ncclCommDestroy(Communicator* communicator) {
  MPI_Comm_free(&communicator->ranks);
  delete communicator;
  return kSuccess;
}

/// Ends messages under way; its ranks have all failed alike in these tests.
EXPORT int ncclCommAbort(Communicator* communicator) {
  MPI_Waitall(static_cast<int>(communicator->requests.size()), communicator->requests.data(),
              MPI_STATUSES_IGNORE);
  return ncclCommDestroy(communicator);
}
