#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <span>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "state.hpp"

/// The part of NVML's binary interface that moevar uses, over the GPUs of the file that
/// MOEVAR_FAKE_NVML_STATE names.
namespace {

using namespace moevar::fake_nvml;

constexpr int kSuccess = 0;
constexpr int kInvalidArgument = 2;
constexpr int kNotSupported = 3;
constexpr int kNoPermission = 4;
constexpr int kNotFound = 6;
constexpr int kInsufficientSize = 7;
constexpr int kDriverNotLoaded = 9;
constexpr int kGpuIsLost = 15;

struct Field {
  unsigned id;
  unsigned scope;
  long long timestamp;
  long long latency;
  int type;
  int code;
  unsigned long long value;
};

struct MemoryInfo {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

struct ProcessInfo {
  unsigned pid;
  unsigned long long memory;
  unsigned gpu_instance;
  unsigned compute_instance;
};

struct PciInfo {
  std::array<char, 16> legacy_id;
  unsigned domain;
  unsigned bus;
  unsigned device;
  unsigned device_id;
  unsigned subsystem_id;
  std::array<char, 32> id;
};

constexpr unsigned long long kNotTold = ~0ULL;

State* open_state() {
  const char* path = std::getenv("MOEVAR_FAKE_NVML_STATE");
  const int fd = path == nullptr ? -1 : ::open(path, O_RDWR | O_CLOEXEC);
  struct stat info {};
  if (fd < 0 || ::fstat(fd, &info) != 0 || static_cast<std::size_t>(info.st_size) < sizeof(State)) {
    return nullptr;
  }
  void* memory = ::mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  auto* found = memory == MAP_FAILED ? nullptr : static_cast<State*>(memory);
  return found != nullptr && found->magic == kMagic ? found : nullptr;
}

State* state() {
  static State* const only = open_state();
  return only;
}

Gpu& gpu_of(void* handle) { return *static_cast<Gpu*>(handle); }

std::string uuid_of(const Gpu& gpu) {
  std::string text;
  for (const auto& word : gpu.uuid) {
    const std::uint64_t bytes = word;
    text.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
  }
  return text.c_str();
}

void sleep_ms(std::uint64_t ms) {
  if (ms != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  }
}

bool lost(const Gpu& gpu) {
  return gpu.lost != 0 || (gpu.lost_after_writes != 0 && gpu.writes >= gpu.lost_after_writes);
}

bool refuses(const Gpu& gpu) {
  return gpu.refuse != 0 || (gpu.refuse_after_writes != 0 && gpu.writes >= gpu.refuse_after_writes);
}

/// Answers a question with `value(gpu, now)`.
template <class T, class F>
int answer(void* handle, T* out, const F& value) {
  const Gpu& gpu = gpu_of(handle);
  sleep_ms(gpu.block_get_ms);
  if (lost(gpu)) {
    return kGpuIsLost;
  }
  *out = static_cast<T>(value(gpu, now_ns()));
  return kSuccess;
}

int copy_text(const std::string& text, char* out, unsigned bytes) {
  if (text.size() + 1 > bytes) {
    return kInvalidArgument;
  }
  std::memcpy(out, text.c_str(), text.size() + 1);
  return kSuccess;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int nvmlInit_v2() { return state() == nullptr ? kDriverNotLoaded : kSuccess; }

const char* nvmlErrorString(int code) {
  switch (code) {
    case kInvalidArgument:
      return "Invalid Argument";
    case kNotSupported:
      return "Not Supported";
    case kNoPermission:
      return "Insufficient Permissions";
    case kNotFound:
      return "Not Found";
    case kDriverNotLoaded:
      return "Driver Not Loaded";
    case kGpuIsLost:
      return "GPU is lost";
    default:
      return "Unknown Error";
  }
}

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(state()->gpus);
  return kSuccess;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** handle) {
  if (index >= state()->gpus) {
    return kInvalidArgument;
  }
  *handle = &state()->gpu[index];
  return state()->gpu[index].lost > 1 ? kGpuIsLost : kSuccess;
}

int nvmlDeviceGetHandleByUUID(const char* uuid, void** handle) {
  for (unsigned i = 0; i < state()->gpus; ++i) {
    if (uuid_of(state()->gpu[i]) == uuid) {
      *handle = &state()->gpu[i];
      return kSuccess;
    }
  }
  return kNotFound;
}

int nvmlDeviceGetUUID(void* handle, char* out, unsigned bytes) {
  return copy_text(uuid_of(gpu_of(handle)), out, bytes);
}

int nvmlDeviceGetName(void* /*handle*/, char* out, unsigned bytes) {
  return copy_text("Fake GPU", out, bytes);
}

int nvmlSystemGetDriverVersion(char* out, unsigned bytes) {
  return copy_text("580.00.00", out, bytes);
}

int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 13000;
  return kSuccess;
}

int nvmlDeviceGetIndex(void* handle, unsigned* index) {
  *index = static_cast<unsigned>(&gpu_of(handle) - state()->gpu.data());
  return kSuccess;
}

int nvmlDeviceGetPciInfo_v3(void* handle, PciInfo* info) {
  *info = {};
  const int code =
      answer(handle, &info->bus, [](const Gpu& gpu, auto) { return gpu.pci_bus.load(); });
  std::snprintf(info->id.data(), info->id.size(), "%08X:%02X:%02X.0", 0U, info->bus, 0U);
  return code;
}

int nvmlDeviceGetMemoryInfo(void* handle, MemoryInfo* info) {
  return answer(handle, &info->total, [info](const Gpu& gpu, auto) {
    info->used = 0;
    for (std::size_t i = 0; i < gpu.pid.size(); ++i) {
      const unsigned long long bytes = gpu.process_bytes[i];
      info->used += gpu.pid[i] != 0 && bytes != kNotTold ? bytes : 0;
    }
    info->free = gpu.memory_bytes - info->used;
    return gpu.memory_bytes.load();
  });
}

int nvmlDeviceGetComputeRunningProcesses_v3(void* handle, unsigned* count, ProcessInfo* infos) {
  unsigned running = 0;
  const int code = answer(handle, &running, [count, infos](const Gpu& gpu, auto) {
    unsigned number = 0;
    for (std::size_t i = 0; i < gpu.pid.size(); ++i) {
      if (gpu.pid[i] != 0 && number++ < *count) {
        infos[number - 1] = {static_cast<unsigned>(gpu.pid[i]), gpu.process_bytes[i], ~0U, ~0U};
      }
    }
    return number;
  });
  const bool fits = running <= *count;
  *count = running;
  return code != kSuccess || fits ? code : kInsufficientSize;
}

int nvmlDeviceGetComputeMode(void* handle, int* mode) {
  return answer(handle, mode, [](const Gpu& gpu, auto) { return gpu.compute_mode.load(); });
}

int nvmlDeviceGetMigMode(void* handle, unsigned* current, unsigned* pending) {
  if (gpu_of(handle).mig > 1) {
    return kNotSupported;
  }
  *pending = static_cast<unsigned>(gpu_of(handle).mig);
  return answer(handle, current, [](const Gpu& gpu, auto) { return gpu.mig.load(); });
}

int nvmlDeviceGetCudaComputeCapability(void* handle, int* major, int* minor) {
  *minor = static_cast<int>(gpu_of(handle).capability % 10);
  return answer(handle, major, [](const Gpu& gpu, auto) { return gpu.capability / 10; });
}

int nvmlDeviceGetPersistenceMode(void* handle, int* on) {
  return answer(handle, on, [](const Gpu& gpu, auto) { return gpu.not_persistent == 0 ? 1 : 0; });
}

int nvmlDeviceGetPowerManagementLimitConstraints(void* handle, unsigned* min, unsigned* max) {
  const int code = answer(handle, min, [](const Gpu& gpu, auto) { return gpu.min_mw.load(); });
  return code != kSuccess
             ? code
             : answer(handle, max, [](const Gpu& gpu, auto) { return gpu.max_mw.load(); });
}

int nvmlDeviceGetPowerManagementDefaultLimit(void* handle, unsigned* limit) {
  return answer(handle, limit, [](const Gpu& gpu, auto) { return gpu.default_mw.load(); });
}

int nvmlDeviceGetPowerManagementLimit(void* handle, unsigned* limit) {
  return answer(handle, limit, requested_mw);
}

int nvmlDeviceGetEnforcedPowerLimit(void* handle, unsigned* limit) {
  return answer(handle, limit, enforced_mw);
}

int nvmlDeviceSetPowerManagementLimit(void* handle, unsigned limit) {
  Gpu& gpu = gpu_of(handle);
  sleep_ms(gpu.block_set_ms);
  if (lost(gpu)) {
    return kGpuIsLost;
  }
  if (refuses(gpu)) {
    return kNoPermission;
  }
  if (limit < gpu.min_mw || limit > gpu.max_mw) {
    return kInvalidArgument;
  }
  set_limit(gpu, limit);
  return kSuccess;
}

int nvmlDeviceGetPowerUsage(void* handle, unsigned* milliwatts) {
  return answer(handle, milliwatts, power_mw);
}

int nvmlDeviceGetTotalEnergyConsumption(void* handle, unsigned long long* millijoules) {
  return answer(handle, millijoules, energy_mj);
}

int nvmlDeviceGetTemperature(void* handle, unsigned sensor, unsigned* celsius) {
  return sensor != 0 ? kInvalidArgument : answer(handle, celsius, [](const Gpu& gpu, auto now) {
    return temperature_mc(gpu, now) * 1e-3;
  });
}

int nvmlDeviceGetClockInfo(void* handle, unsigned clock, unsigned* mhz) {
  return clock != 1 ? kNotSupported : answer(handle, mhz, clock_mhz);
}

/// By its old name alone, as drivers before 535 have it.
int nvmlDeviceGetCurrentClocksThrottleReasons(void* handle, unsigned long long* reasons) {
  return answer(handle, reasons, [](const Gpu& gpu, auto now) {
    return gpu.reasons | (gpu.burning == 0 ? 0x1U : 0U) | (capped(gpu, now) ? 0x4U : 0U);
  });
}

int nvmlDeviceGetFieldValues(void* handle, int count, void* values) {
  constexpr int kUnsigned = 1;
  constexpr int kUnsignedLongLong = 3;
  for (auto& field : std::span(static_cast<Field*>(values), static_cast<std::size_t>(count))) {
    const bool power = field.id == 185 || field.id == 186;
    field.value = 0;
    field.type = power ? kUnsigned : kUnsignedLongLong;
    if (power) {
      field.code = answer(handle, &field.value, power_mw);
    } else if (field.id == 74) {
      field.code = answer(handle, &field.value, capped_ns);
    } else if (field.id == 269) {
      field.code = answer(handle, &field.value, [](auto&&...) { return 0; });
    } else {
      field.code = kNotSupported;
    }
  }
  return kSuccess;
}

/// No function of NVML: what works on a fake GPU says so here.
void moevarStandInBurning(void* handle, int burning) {
  Gpu& gpu = gpu_of(handle);
  settle(gpu, now_ns());
  gpu.burning = burning != 0 ? 1U : 0U;
}

}  // extern "C"
#pragma GCC visibility pop
