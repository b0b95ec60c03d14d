#pragma once

#include <optional>
#include <string>
#include <vector>

#include "timeline/telemetry.hpp"

namespace moevar::conditions {

/// Who burns (runs a dense GEMM, the hottest ordinary work) while time passes.
enum class Burn {
  nobody,
  fleet,       ///< every device of the fleet
  neighbours,  ///< the other GPUs of the fleet's nodes; the fleet idles
};

/// The power and heat of a fleet, behind one interface: real GPUs through NVML, a fake NVML, and
/// modelled GPUs in virtual time. Devices are in fleet order. Every member is collective over the
/// fleet's ranks and gives every rank the same.
class Plant {
 public:
  virtual ~Plant() = default;

  /// Puts a limit on every device; nullopt: what the devices had before moevar came. Refuses
  /// (InputError) what lies outside a device's range, before anything is written. Throws
  /// EnvironmentError where this cannot be had.
  virtual void set_cap(std::optional<double> request_w) = 0;
  /// As it is now.
  virtual std::vector<timeline::CapState> caps() = 0;
  /// A line for each device whose enforced limit changed by itself since set_cap() or the last
  /// watch().
  virtual std::vector<std::string> watch() { return {}; }

  /// Lets time pass.
  virtual void work(double seconds, Burn burn) = 0;
  /// Lets them burn on, whatever else happens, until told Burn::nobody. Only neighbours can.
  virtual void keep_burning(Burn burn) = 0;
  /// One reading of every device.
  virtual std::vector<timeline::Reading> read() = 0;
  virtual std::vector<timeline::Counters> count() = 0;

  /// Readings at a fixed rate from here on ...
  virtual void start_telemetry(double hz) = 0;
  /// ... to here: those of this rank's devices, [device][reading], rising in time.
  virtual std::vector<std::vector<timeline::Reading>> stop_telemetry() = 0;
  /// Processor time that the latest telemetry took on this rank's node, seconds; not collective.
  [[nodiscard]] virtual double polling_s() const = 0;
};

}  // namespace moevar::conditions
