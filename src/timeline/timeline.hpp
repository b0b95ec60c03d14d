#pragma once

#include <cstdint>
#include <vector>

#include "base/tensor.hpp"
#include "base/units.hpp"

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

/// How a device stood while a phase ran.
struct DeviceState {
  double requested_cap_w = 0.0;  ///< NaN: none was asked for
  double enforced_cap_w = 0.0;   ///< NaN: not known
  double sm_clock_mhz = 0.0;
  double power_w = 0.0;
  double temperature_c = 0.0;
  std::uint64_t throttle_reasons = 0;  ///< NVML's clocks-event bitmask
  bool steady = true;                  ///< in thermal steady state
};

}  // namespace moevar::timeline
