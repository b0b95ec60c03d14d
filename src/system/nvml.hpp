#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "system/pci.hpp"

/// NVML, one thin function per question. The library is loaded when first asked for:
/// libnvidia-ml.so.1, or the one that the environment variable MOEVAR_NVML names, a stand-in for
/// tests. It is never unloaded: without persistence mode a driver without clients forgets its
/// limits. Nothing here is collective; all of it may be called from any thread.
namespace moevar::nvml {

enum class Failure { other, invalid_argument, no_permission, lost, not_supported };

/// A call failed: which one, and NVML's own text.
class NvmlError : public LibraryError {
 public:
  NvmlError(Failure kind, std::string_view call, std::string_view message,
            SourceLocation where = SourceLocation::current())
      : LibraryError(call, message, where), kind_(kind) {}
  [[nodiscard]] Failure kind() const noexcept { return kind_; }

 private:
  Failure kind_;
};

/// Whether NVML is there and answers. Never throws.
bool available() noexcept;
/// Why it does not; empty where it does.
std::string why_unavailable();

/// The driver's version; nullopt where it does not tell.
std::optional<std::string> driver_version();

/// The newest CUDA that the driver supports, major × 1000 + minor × 10; nullopt: not told.
std::optional<int> driver_supports_cuda();

/// How many GPUs there are, lost ones included. 0 without NVML. Throws NvmlError.
unsigned count();

/// Every GPU's UUID in NVML's order, which is not CUDA's. Empty without NVML. Throws NvmlError.
std::vector<std::string> uuids();
/// The UUIDs of a stand-in's GPUs: empty unless MOEVAR_NVML is set.
std::vector<std::string> stand_in_uuids();

using Milliwatts = std::uint32_t;

/// What a GPU's power limit may be. The default is the limit after boot.
struct PowerLimits {
  Milliwatts min = 0;
  Milliwatts normal = 0;
  Milliwatts max = 0;
};

/// What the sensors show. NaN: the GPU does not tell, or the call failed.
struct Sensors {
  double sm_clock_mhz = std::numeric_limits<double>::quiet_NaN();
  double power_w = std::numeric_limits<double>::quiet_NaN();       ///< instant, else the usual one
  double mean_power_w = std::numeric_limits<double>::quiet_NaN();  ///< over the last second
  double temperature_c = std::numeric_limits<double>::quiet_NaN();
  std::uint64_t clock_reasons = 0;  ///< clocks-event reasons, a bitmask
};

/// What the driver counts since it was loaded. NaN: it does not.
struct Counts {
  double energy_mj = std::numeric_limits<double>::quiet_NaN();
  double sw_power_cap_ns = std::numeric_limits<double>::quiet_NaN();
  double sw_thermal_ns = std::numeric_limits<double>::quiet_NaN();
  double hw_thermal_ns = std::numeric_limits<double>::quiet_NaN();
};

struct Memory {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
};

/// Who may make a context on a GPU: any number of processes, one, or none.
enum class ComputeMode { shared, exclusive_thread, prohibited, exclusive_process };

/// A process with a compute context on a GPU.
struct Process {
  unsigned pid = 0;                           ///< of the host's process namespace
  std::optional<std::uint64_t> memory_bytes;  ///< nullopt: the driver does not tell
  bool operator==(const Process&) const = default;
};

/// One GPU. Members throw NvmlError unless said otherwise.
class Device {
 public:
  /// Throws EnvironmentError without NVML, or where it has no GPU of that UUID.
  static Device find(const std::string& uuid);

  /// The GPU of an index below count(). Throws NvmlError, also where it is lost.
  static Device at(unsigned index);

  [[nodiscard]] const std::string& uuid() const noexcept { return uuid_; }
  [[nodiscard]] std::string name() const;
  [[nodiscard]] std::string pci_bus_id() const;
  [[nodiscard]] pci::Address pci_address() const;
  /// NVML's index, which is not CUDA's ordinal.
  [[nodiscard]] unsigned index() const;
  [[nodiscard]] Memory memory() const;
  /// Every process that computes on it, this one included. Throws NvmlError where this driver or
  /// this container does not tell.
  [[nodiscard]] std::vector<Process> processes() const;
  /// nullopt: the driver does not tell, or the GPU has no such mode.
  [[nodiscard]] std::optional<ComputeMode> compute_mode() const;
  [[nodiscard]] std::optional<bool> mig_mode() const;
  /// Compute capability × 10.
  [[nodiscard]] std::optional<int> capability() const;
  /// nullopt: the driver does not tell.
  [[nodiscard]] std::optional<bool> persistence_mode() const;

  /// Of the SM; nullopt: the driver does not tell.
  [[nodiscard]] std::optional<unsigned> most_sm_clock_mhz() const;

  [[nodiscard]] PowerLimits limits() const;
  /// What was last asked for, by whomever.
  [[nodiscard]] Milliwatts requested_limit() const;
  /// What holds after all limiters, out-of-band ones included.
  [[nodiscard]] Milliwatts enforced_limit() const;
  /// Needs root. Called by the guard of power caps alone.
  void set_limit(Milliwatts limit) const;

  [[nodiscard]] Sensors sensors() const noexcept;
  [[nodiscard]] Counts counts() const noexcept;

  /// Tells a stand-in that this GPU works now; real GPUs feel that themselves, and nothing happens.
  void hint_burning(bool burning) const noexcept;

 private:
  Device(void* handle, std::string uuid) : handle_(handle), uuid_(std::move(uuid)) {}
  void* handle_;
  std::string uuid_;
};

}  // namespace moevar::nvml
