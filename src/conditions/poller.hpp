#pragma once

#include <memory>
#include <string>
#include <vector>

#include "system/nvml.hpp"
#include "timeline/telemetry.hpp"

namespace moevar::conditions {

/// A reading of one GPU now, on CLOCK_MONOTONIC_RAW.
timeline::Reading read_sensors(const nvml::Device& device) noexcept;

/// A thread that reads GPUs' sensors at a fixed rate. One per node: its leader has it.
class Poller {
 public:
  /// Starts. `hz` > 0. `taken_cores`: by OS index, where ranks run and the thread, if it
  /// can, does not. Throws EnvironmentError.
  Poller(std::vector<nvml::Device> devices, double hz, const std::vector<bool>& taken_cores);
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  struct Result {
    std::vector<std::vector<timeline::Reading>> readings;  ///< [device][reading], rising in time
    double cpu_s = 0.0;                                    ///< what the thread itself took
    double wall_s = 0.0;                                   ///< since the start
  };
  /// Ends the thread. One that hangs in the driver is left to it after some seconds, and what it
  /// read is lost: then there are no readings.
  Result stop();

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace moevar::conditions
