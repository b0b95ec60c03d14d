#pragma once

#include <functional>
#include <span>

#include "base/units.hpp"

/// A GPU's own clock (`%globaltimer`) as seen from the host's: what a calibration's exchanges say
/// about their difference. Here are values and arithmetic; device_clock_cuda.hpp asks the GPU.
/// Readings of one GPU are of no meaning on another one's clock.
namespace moevar::device_clock {

/// The host's clock, to be read in nanoseconds: timeline::monotonic_raw_ns.
using HostClock = std::function<Nanoseconds()>;

/// One exchange: the host asked, the GPU wrote its clock down, the host saw the answer.
struct Round {
  Nanoseconds asked = 0;     ///< host
  Nanoseconds stamped = 0;   ///< GPU
  Nanoseconds answered = 0;  ///< host
};

/// What a burst of rounds says: host − GPU lies in [lower, upper] at GPU time `at`.
struct Offset {
  Nanoseconds at = 0;  ///< GPU
  Nanoseconds lower = 0;
  Nanoseconds upper = 0;
  Nanoseconds min_round_trip_ns = 0;
  Nanoseconds step_ns = 0;  ///< of the GPU's clock

  [[nodiscard]] double middle_ns() const noexcept;
  /// The middle is this near to the truth.
  [[nodiscard]] Nanoseconds residual_ns() const noexcept;
};

/// The tightest bounds of a burst: a stamp stands for any time from itself to a step later, and was
/// written between the host's two readings. Rounds within 1.5 × the smallest round trip are kept;
/// should their bounds contradict each other (clocks that drift), the quickest counts alone. Throws
/// InputError for no rounds, or ones whose answer came before the question.
Offset offset_of(std::span<const Round> rounds, Nanoseconds step_ns);

/// A GPU's clock on the host's: host = t + offset + slope × (t − at).
struct DeviceClock {
  Nanoseconds at = 0;           ///< GPU: t is counted from here, so that digits don't cancel
  double offset_ns = 0.0;       ///< host − GPU at `at`
  double slope = 0.0;           ///< what the host gains on the GPU: 1e-6 is 1 µs a second
  Nanoseconds residual_ns = 0;  ///< the result is this near to the truth between the calibrations
  Nanoseconds min_round_trip_ns = 0;
  Nanoseconds step_ns = 0;

  /// The host's time of a stamp.
  [[nodiscard]] Nanoseconds to_host(Nanoseconds stamped) const noexcept;
  /// Whether an interval of two stamps may be told: at least ten steps of the clock.
  [[nodiscard]] bool tells(Nanoseconds interval_ns) const noexcept;
};

/// One calibration alone: slope 0.
DeviceClock at_once(const Offset& offset);

/// The line through two calibrations, at both ends of a phase: between them the drift is known
/// from their distance. Residual, round trip and step are the larger of the two.
DeviceClock between(const Offset& before, const Offset& after);

}  // namespace moevar::device_clock
