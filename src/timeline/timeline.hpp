#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor.hpp"
#include "base/units.hpp"
#include "timeline/telemetry.hpp"

namespace moevar::mpi {
class Communicator;
}

namespace moevar::timeline {

/// What some devices did in one phase, each [devices][steps][layers], on the fleet's common clock,
/// whose zero is the start of the phase's first step.
///
/// A layer runs from the moment the last device left the layer before (or the step's start) to the
/// moment the last device leaves it; for every device
///     dispatch_ns + expert_ns + wait_ns + combine_ns = the layer's time.
struct Timeline {
  Timeline() = default;
  Timeline(std::size_t devices, std::size_t steps, std::size_t layers);

  Tensor<std::uint32_t, 3> tokens;     ///< tokens that the device's experts received
  Tensor<Nanoseconds, 3> dispatch_ns;  ///< layer start → its tokens are there (gating included)
  Tensor<Nanoseconds, 3> expert_ns;    ///< its experts' work
  Tensor<Nanoseconds, 3> arrival_ns;   ///< when it finished its experts, clock reading
  Tensor<Nanoseconds, 3> wait_ns;      ///< last arrival of the layer − own arrival
  Tensor<Nanoseconds, 3> combine_ns;   ///< last arrival → layer end

  [[nodiscard]] std::size_t devices() const noexcept { return tokens.extent(0); }
  [[nodiscard]] std::size_t steps() const noexcept { return tokens.extent(1); }
  [[nodiscard]] std::size_t layers() const noexcept { return tokens.extent(2); }
};

/// What all devices of a phase did, seen per layer call: [steps][layers] each. The same on every
/// rank. Integers, so that the sums over devices don't depend on how devices are spread over ranks.
struct LayerTotals {
  LayerTotals() = default;
  LayerTotals(std::size_t steps, std::size_t layers);

  int devices = 0;
  Matrix<Nanoseconds> layer_ns;       ///< layer time
  Matrix<Nanoseconds> busy_sum_ns;    ///< Σ over devices of dispatch + experts + combine
  Matrix<Nanoseconds> wait_sum_ns;    ///< Σ over devices of wait
  Matrix<Nanoseconds> expert_max_ns;  ///< slowest device's expert time
  Matrix<Nanoseconds> expert_min_ns;  ///< fastest device's
  Matrix<std::int64_t> tokens_max;    ///< busiest device's tokens
  Matrix<std::int64_t> tokens_sum;
};

/// Totals over the devices of `part` alone, as if they were the whole fleet: what one rank
/// contributes.
/// Without devices: zeros, and the largest value as the least expert time, so that it changes
/// nothing in a reduction.
LayerTotals totals_of(const Timeline& part);

/// Totals of the whole fleet from every rank's totals_of(), the same on every rank. Collective; all
/// parts have the same [steps][layers], and ranks without devices take part.
LayerTotals reduce_totals(const mpi::Communicator& comm, LayerTotals part);

/// What each device of a timeline did over all its layer calls, [devices] each.
struct DeviceTotals {
  std::vector<std::int64_t> tokens_sum;
  std::vector<Nanoseconds> busy_sum_ns;  ///< dispatch + experts + combine
  std::vector<Nanoseconds> expert_sum_ns;
  std::vector<Nanoseconds> wait_sum_ns;
  std::vector<std::int64_t> last_calls;  ///< layer calls in which it arrived last

  static const std::array<std::vector<std::int64_t> DeviceTotals::*, 5> kParts;
};

inline constexpr std::array<std::vector<std::int64_t> DeviceTotals::*, 5> DeviceTotals::kParts{
    &DeviceTotals::tokens_sum, &DeviceTotals::busy_sum_ns, &DeviceTotals::expert_sum_ns,
    &DeviceTotals::wait_sum_ns, &DeviceTotals::last_calls};

DeviceTotals totals_by_device(const Timeline& timeline);

/// How a device stood when a phase began.
struct DeviceState {
  CapState cap;
  double sm_clock_mhz = 0.0;
  double power_w = 0.0;
  double temperature_c = 0.0;
  std::uint64_t throttle_reasons = 0;  ///< bits of timeline::reason
  bool steady = true;                  ///< temperature and clock have settled
  double slope_c_min = kUnknown;       ///< its temperature's slope over FleetState::window_s
};

/// How a fleet stood when a phase began, and how it came there.
struct FleetState {
  std::vector<DeviceState> devices;  ///< the whole fleet
  std::string caps = "none";         ///< who sets the caps: "set" | "verify" | "observe" | "model"
  std::string sensors = "none";      ///< what was read: "nvml" | "stand-in" | "model"
  std::vector<std::string> cap_changes;  ///< a line for each limit that changed by itself
  double heat_s = 0.0;                   ///< time it took to get there
  double window_s = kUnknown;            ///< over which steadiness was judged; NaN: it was not
};

/// What this rank's devices showed during a phase. Times are on the clock of the timeline. Parts
/// that nobody took are empty.
struct Telemetry {
  std::vector<std::vector<Reading>> series;  ///< [device][reading], at the sampling rate
  Matrix<double> step_sm_clock_mhz;          ///< [device][step]
  Matrix<double> step_temperature_c;
  Matrix<std::uint32_t> step_throttle_reasons;
  std::vector<Counters> counted;  ///< [device]: over the measured steps
  double polling_s = 0.0;         ///< processor time that sampling took, slowest node
};

}  // namespace moevar::timeline
