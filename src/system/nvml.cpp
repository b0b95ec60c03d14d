#include "system/nvml.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <dlfcn.h>
#include <span>

#include <fmt/format.h>

namespace moevar::nvml {

namespace {

// Facts of NVML's binary interface (its documentation, header 13.3).
using Handle = void*;
constexpr int kSuccess = 0;
constexpr int kInvalidArgument = 2;
constexpr int kNotSupported = 3;
constexpr int kNoPermission = 4;
constexpr int kInsufficientSize = 7;
constexpr int kGpuIsLost = 15;
constexpr int kResetRequired = 16;
constexpr unsigned kUuidBytes = 96;
constexpr unsigned kNameBytes = 96;
constexpr unsigned kSmClock = 1;
constexpr unsigned kGpuTemperature = 0;

constexpr unsigned kFieldSwPowerCapNs = 74;
constexpr unsigned kFieldEnergyMj = 83;
constexpr unsigned kFieldMeanPowerMw = 185;
constexpr unsigned kFieldInstantPowerMw = 186;
constexpr unsigned kFieldSwThermalNs = 269;
constexpr unsigned kFieldHwThermalNs = 270;

struct FieldValue {
  unsigned field;
  unsigned scope;
  long long timestamp_us;
  long long latency_us;
  int type;
  int code;
  std::uint64_t value;  ///< the bytes of a number whose type `type` tells
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

struct MemoryInfo {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

/// nvmlProcessInfo_v2_t, which is _v3's as well.
struct ProcessInfo {
  unsigned pid;
  unsigned long long memory;
  unsigned gpu_instance;
  unsigned compute_instance;
};
constexpr unsigned long long kNotTold = ~0ULL;

/// The functions in use; a null pointer where this driver has none.
struct Functions {
  int (*init)() = nullptr;
  const char* (*error_string)(int) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*by_index)(unsigned, Handle*) = nullptr;
  int (*by_uuid)(const char*, Handle*) = nullptr;
  int (*driver)(char*, unsigned) = nullptr;
  int (*cuda_version)(int*) = nullptr;
  int (*uuid)(Handle, char*, unsigned) = nullptr;
  int (*name)(Handle, char*, unsigned) = nullptr;
  int (*pci)(Handle, PciInfo*) = nullptr;
  int (*index)(Handle, unsigned*) = nullptr;
  int (*memory)(Handle, MemoryInfo*) = nullptr;
  int (*processes)(Handle, unsigned*, ProcessInfo*) = nullptr;
  int (*compute_mode)(Handle, int*) = nullptr;
  int (*mig_mode)(Handle, unsigned*, unsigned*) = nullptr;
  int (*capability)(Handle, int*, int*) = nullptr;
  int (*persistence)(Handle, int*) = nullptr;
  int (*constraints)(Handle, unsigned*, unsigned*) = nullptr;
  int (*default_limit)(Handle, unsigned*) = nullptr;
  int (*requested_limit)(Handle, unsigned*) = nullptr;
  int (*enforced_limit)(Handle, unsigned*) = nullptr;
  int (*set_limit)(Handle, unsigned) = nullptr;
  int (*power)(Handle, unsigned*) = nullptr;
  int (*fields)(Handle, int, FieldValue*) = nullptr;
  int (*energy)(Handle, unsigned long long*) = nullptr;
  int (*temperature)(Handle, unsigned, unsigned*) = nullptr;
  int (*clock)(Handle, unsigned, unsigned*) = nullptr;
  int (*most_clock)(Handle, unsigned, unsigned*) = nullptr;
  int (*reasons)(Handle, unsigned long long*) = nullptr;
  void (*stand_in_burning)(Handle, int) = nullptr;
};

template <class F>
void take(void* library, F*& function, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    function = function != nullptr ? function : reinterpret_cast<F*>(dlsym(library, name));
  }
}

const char* stand_in() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing in this program changes its environment
  const char* name = std::getenv("MOEVAR_NVML");
  return name != nullptr && *name != '\0' ? name : nullptr;
}

struct Library {
  Functions call;
  std::string problem;  ///< empty: ready

  Library() {
    const char* name = stand_in() != nullptr ? stand_in() : "libnvidia-ml.so.1";
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      // NOLINTNEXTLINE(concurrency-mt-unsafe): dlerror is of this thread
      problem = fmt::format("NVML cannot be loaded: {}", dlerror());
      return;
    }
    load(library);
    if (call.init == nullptr || call.count == nullptr || call.by_index == nullptr ||
        call.by_uuid == nullptr || call.uuid == nullptr) {
      problem = fmt::format("{} is no NVML that moevar knows", name);
      return;
    }
    if (const int code = call.init(); code != kSuccess) {
      problem = fmt::format("nvmlInit_v2: {}", text(code));
    }
  }

  [[nodiscard]] std::string text(int code) const {
    const char* text = call.error_string == nullptr ? nullptr : call.error_string(code);
    return text == nullptr ? fmt::format("error {}", code) : text;
  }

 private:
  void load(void* library) {
    take(library, call.init, {"nvmlInit_v2"});
    take(library, call.error_string, {"nvmlErrorString"});
    take(library, call.count, {"nvmlDeviceGetCount_v2"});
    take(library, call.by_index, {"nvmlDeviceGetHandleByIndex_v2"});
    take(library, call.by_uuid, {"nvmlDeviceGetHandleByUUID"});
    take(library, call.driver, {"nvmlSystemGetDriverVersion"});
    take(library, call.cuda_version, {"nvmlSystemGetCudaDriverVersion_v2"});
    take(library, call.uuid, {"nvmlDeviceGetUUID"});
    take(library, call.name, {"nvmlDeviceGetName"});
    take(library, call.pci, {"nvmlDeviceGetPciInfo_v3"});
    take(library, call.index, {"nvmlDeviceGetIndex"});
    take(library, call.memory, {"nvmlDeviceGetMemoryInfo"});
    take(library, call.processes,
         {"nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"});
    take(library, call.compute_mode, {"nvmlDeviceGetComputeMode"});
    take(library, call.mig_mode, {"nvmlDeviceGetMigMode"});
    take(library, call.capability, {"nvmlDeviceGetCudaComputeCapability"});
    take(library, call.persistence, {"nvmlDeviceGetPersistenceMode"});
    take(library, call.constraints, {"nvmlDeviceGetPowerManagementLimitConstraints"});
    take(library, call.default_limit, {"nvmlDeviceGetPowerManagementDefaultLimit"});
    take(library, call.requested_limit, {"nvmlDeviceGetPowerManagementLimit"});
    take(library, call.enforced_limit, {"nvmlDeviceGetEnforcedPowerLimit"});
    take(library, call.set_limit, {"nvmlDeviceSetPowerManagementLimit"});
    take(library, call.power, {"nvmlDeviceGetPowerUsage"});
    take(library, call.fields, {"nvmlDeviceGetFieldValues"});
    take(library, call.energy, {"nvmlDeviceGetTotalEnergyConsumption"});
    take(library, call.temperature, {"nvmlDeviceGetTemperature"});
    take(library, call.clock, {"nvmlDeviceGetClockInfo"});
    take(library, call.most_clock, {"nvmlDeviceGetMaxClockInfo"});
    take(library, call.reasons,
         {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"});
    take(library, call.stand_in_burning, {"moevarStandInBurning"});
  }
};

const Library& library() {
  static const Library only;
  return only;
}

Failure kind_of(int code) {
  switch (code) {
    case kInvalidArgument:
      return Failure::invalid_argument;
    case kNotSupported:
      return Failure::not_supported;
    case kNoPermission:
      return Failure::no_permission;
    case kGpuIsLost:
    case kResetRequired:
      return Failure::lost;
    default:
      return Failure::other;
  }
}

/// Calls `function`; throws NvmlError where that fails or this driver has no such function.
template <class F, class... Arguments>
void ask(const char* name, F* function, Arguments... arguments) {
  const int code = function == nullptr ? kNotSupported : function(arguments...);
  if (code != kSuccess) {
    throw NvmlError(kind_of(code), name, library().text(code));
  }
}

/// The same for a reading: whether it was answered.
template <class F, class... Arguments>
bool answered(F* function, Arguments... arguments) noexcept {
  return function != nullptr && function(arguments...) == kSuccess;
}

std::string uuid_of(Handle handle) {
  std::array<char, kUuidBytes> text{};
  ask("nvmlDeviceGetUUID", library().call.uuid, handle, text.data(), kUuidBytes);
  return text.data();
}

/// NaN where the field was not answered.
double number_of(const FieldValue& field) noexcept {
  if (field.code != kSuccess) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  switch (field.type) {
    case 0:
      return std::bit_cast<double>(field.value);
    case 1:
      return static_cast<std::uint32_t>(field.value);  // little-endian, as every such host is
    case 2:
    case 3:
      return static_cast<double>(field.value);
    case 4:
      return static_cast<double>(std::bit_cast<std::int64_t>(field.value));
    case 5:
      return std::bit_cast<std::int32_t>(static_cast<std::uint32_t>(field.value));
    default:
      return std::numeric_limits<double>::quiet_NaN();
  }
}

template <std::size_t N>
std::array<double, N> fields_of(Handle handle, const std::array<unsigned, N>& ids) noexcept {
  std::array<FieldValue, N> values{};
  for (std::size_t i = 0; i < N; ++i) {
    values[i].field = ids[i];
    values[i].code = kNotSupported;
  }
  std::array<double, N> numbers{};
  numbers.fill(std::numeric_limits<double>::quiet_NaN());
  if (answered(library().call.fields, handle, static_cast<int>(N), values.data())) {
    for (std::size_t i = 0; i < N; ++i) {
      numbers[i] = number_of(values[i]);
    }
  }
  return numbers;
}

}  // namespace

bool available() noexcept {
  try {
    return library().problem.empty();
  } catch (...) {
    return false;
  }
}

std::string why_unavailable() { return library().problem; }

std::optional<std::string> driver_version() {
  constexpr unsigned kBytes = 80;
  std::array<char, kBytes> text{};
  return available() && answered(library().call.driver, text.data(), kBytes)
             ? std::optional<std::string>(text.data())
             : std::nullopt;
}

std::optional<int> driver_supports_cuda() {
  int version = 0;
  return available() && answered(library().call.cuda_version, &version) ? std::optional(version)
                                                                        : std::nullopt;
}

unsigned count() {
  unsigned gpus = 0;
  if (available()) {
    ask("nvmlDeviceGetCount_v2", library().call.count, &gpus);
  }
  return gpus;
}

std::vector<std::string> uuids() {
  const unsigned gpus = count();
  std::vector<std::string> all;
  all.reserve(gpus);
  for (unsigned i = 0; i < gpus; ++i) {
    all.push_back(Device::at(i).uuid());
  }
  return all;
}

std::vector<std::string> stand_in_uuids() {
  return stand_in() == nullptr ? std::vector<std::string>{} : uuids();
}

Device Device::find(const std::string& uuid) {
  if (!available()) {
    throw EnvironmentError(why_unavailable());
  }
  Handle handle = nullptr;
  if (const int code = library().call.by_uuid(uuid.c_str(), &handle); code != kSuccess) {
    throw NvmlError(kind_of(code), fmt::format("nvmlDeviceGetHandleByUUID({})", uuid),
                    library().text(code));
  }
  return {handle, uuid};
}

Device Device::at(unsigned index) {
  if (!available()) {
    throw EnvironmentError(why_unavailable());
  }
  Handle handle = nullptr;
  ask("nvmlDeviceGetHandleByIndex_v2", library().call.by_index, index, &handle);
  return {handle, uuid_of(handle)};
}

std::string Device::name() const {
  std::array<char, kNameBytes> text{};
  ask("nvmlDeviceGetName", library().call.name, handle_, text.data(), kNameBytes);
  return text.data();
}

std::string Device::pci_bus_id() const {
  PciInfo info{};
  ask("nvmlDeviceGetPciInfo_v3", library().call.pci, handle_, &info);
  return info.id.data();
}

pci::Address Device::pci_address() const {
  PciInfo info{};
  ask("nvmlDeviceGetPciInfo_v3", library().call.pci, handle_, &info);
  return {info.domain, info.bus, info.device};
}

unsigned Device::index() const {
  unsigned index = 0;
  ask("nvmlDeviceGetIndex", library().call.index, handle_, &index);
  return index;
}

Memory Device::memory() const {
  MemoryInfo info{};
  ask("nvmlDeviceGetMemoryInfo", library().call.memory, handle_, &info);
  return {info.total, info.free};
}

std::vector<Process> Device::processes() const {
  constexpr int kTries = 8;  // the number may grow between two calls
  std::vector<ProcessInfo> infos;
  unsigned number = 0;
  int code = kInsufficientSize;
  for (int i = 0; i < kTries && code == kInsufficientSize; ++i) {
    infos.resize(number);
    code = library().call.processes == nullptr
               ? kNotSupported
               : library().call.processes(handle_, &number, infos.empty() ? nullptr : infos.data());
  }
  if (code != kSuccess) {
    throw NvmlError(kind_of(code), "nvmlDeviceGetComputeRunningProcesses", library().text(code));
  }
  infos.resize(std::min<std::size_t>(number, infos.size()));
  std::vector<Process> all;
  all.reserve(infos.size());
  for (const auto& info : infos) {
    all.push_back({info.pid, info.memory == kNotTold ? std::nullopt : std::optional(info.memory)});
  }
  return all;
}

std::optional<ComputeMode> Device::compute_mode() const {
  int mode = 0;
  const bool known = answered(library().call.compute_mode, handle_, &mode) && mode >= 0 &&
                     mode <= static_cast<int>(ComputeMode::exclusive_process);
  return known ? std::optional(static_cast<ComputeMode>(mode)) : std::nullopt;
}

std::optional<bool> Device::mig_mode() const {
  unsigned current = 0;
  unsigned pending = 0;
  return answered(library().call.mig_mode, handle_, &current, &pending)
             ? std::optional(current != 0)
             : std::nullopt;
}

std::optional<int> Device::capability() const {
  int major = 0;
  int minor = 0;
  return answered(library().call.capability, handle_, &major, &minor)
             ? std::optional(10 * major + minor)
             : std::nullopt;
}

std::optional<bool> Device::persistence_mode() const {
  int on = 0;
  return answered(library().call.persistence, handle_, &on) ? std::optional(on != 0) : std::nullopt;
}

std::optional<unsigned> Device::most_sm_clock_mhz() const {
  unsigned mhz = 0;
  return answered(library().call.most_clock, handle_, kSmClock, &mhz) ? std::optional(mhz)
                                                                      : std::nullopt;
}

PowerLimits Device::limits() const {
  PowerLimits limits;
  ask("nvmlDeviceGetPowerManagementLimitConstraints", library().call.constraints, handle_,
      &limits.min, &limits.max);
  ask("nvmlDeviceGetPowerManagementDefaultLimit", library().call.default_limit, handle_,
      &limits.normal);
  return limits;
}

Milliwatts Device::requested_limit() const {
  Milliwatts limit = 0;
  ask("nvmlDeviceGetPowerManagementLimit", library().call.requested_limit, handle_, &limit);
  return limit;
}

Milliwatts Device::enforced_limit() const {
  Milliwatts limit = 0;
  ask("nvmlDeviceGetEnforcedPowerLimit", library().call.enforced_limit, handle_, &limit);
  return limit;
}

// NOLINTNEXTLINE(readability-make-member-function-const): it is const; it changes the GPU
void Device::set_limit(Milliwatts limit) const {
  ask("nvmlDeviceSetPowerManagementLimit", library().call.set_limit, handle_, limit);
}

Sensors Device::sensors() const noexcept {
  Sensors sensors;
  const auto& call = library().call;
  if (unsigned mhz = 0; answered(call.clock, handle_, kSmClock, &mhz)) {
    sensors.sm_clock_mhz = mhz;
  }
  if (unsigned celsius = 0; answered(call.temperature, handle_, kGpuTemperature, &celsius)) {
    sensors.temperature_c = celsius;
  }
  if (unsigned long long reasons = 0; answered(call.reasons, handle_, &reasons)) {
    sensors.clock_reasons = reasons;
  }
  const auto power =
      fields_of(handle_, std::array<unsigned, 2>{kFieldInstantPowerMw, kFieldMeanPowerMw});
  sensors.power_w = power[0] * 1e-3;
  sensors.mean_power_w = power[1] * 1e-3;
  const bool unknown = !(power[0] >= 0.0);
  if (unsigned milliwatts = 0; unknown && answered(call.power, handle_, &milliwatts)) {
    sensors.power_w = milliwatts * 1e-3;
  }
  return sensors;
}

Counts Device::counts() const noexcept {
  const auto numbers =
      fields_of(handle_, std::array<unsigned, 4>{kFieldEnergyMj, kFieldSwPowerCapNs,
                                                 kFieldSwThermalNs, kFieldHwThermalNs});
  Counts counts{numbers[0], numbers[1], numbers[2], numbers[3]};
  if (unsigned long long energy = 0; answered(library().call.energy, handle_, &energy)) {
    counts.energy_mj = static_cast<double>(energy);
  }
  return counts;
}

void Device::hint_burning(bool burning) const noexcept {
  if (auto* const hint = library().call.stand_in_burning; hint != nullptr) {
    hint(handle_, burning ? 1 : 0);
  }
}

}  // namespace moevar::nvml
