#include "device_clock/device_clock.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace moevar::device_clock {

namespace {

/// Intervals shorter than this many steps are refused.
constexpr Nanoseconds kSteps = 10;

}  // namespace

double Offset::middle_ns() const noexcept {
  return static_cast<double>(lower) + static_cast<double>(upper - lower) / 2.0;
}

Nanoseconds Offset::residual_ns() const noexcept { return (upper - lower + 1) / 2; }

Offset offset_of(std::span<const Round> rounds, Nanoseconds step_ns) {
  const auto round_trip = [](const Round& r) { return r.answered - r.asked; };
  if (rounds.empty()) {
    throw InputError("device_clock: no rounds to calibrate a clock with");
  }
  const Round& quickest = *std::ranges::min_element(rounds, {}, round_trip);
  if (round_trip(quickest) < 0) {
    throw InputError("device_clock: a round's answer came before its question");
  }
  // the GPU's true time is in [stamped, stamped + step), the host's in [asked, answered]
  const auto lower = [&](const Round& r) { return r.asked - r.stamped - step_ns; };
  const auto upper = [](const Round& r) { return r.answered - r.stamped; };
  const Offset alone{quickest.stamped, lower(quickest), upper(quickest), round_trip(quickest),
                     step_ns};
  Offset tight = alone;
  for (const Round& r : rounds) {
    if (2 * round_trip(r) <= 3 * alone.min_round_trip_ns) {
      tight.lower = std::max(tight.lower, lower(r));
      tight.upper = std::min(tight.upper, upper(r));
    }
  }
  return tight.lower <= tight.upper ? tight : alone;
}

Nanoseconds DeviceClock::to_host(Nanoseconds stamped) const noexcept {
  return stamped + std::llround(offset_ns + slope * static_cast<double>(stamped - at));
}

bool DeviceClock::tells(Nanoseconds interval_ns) const noexcept {
  return interval_ns >= kSteps * step_ns;
}

DeviceClock at_once(const Offset& offset) {
  return {offset.at,     offset.middle_ns(), 0.0, offset.residual_ns(), offset.min_round_trip_ns,
          offset.step_ns};
}

DeviceClock between(const Offset& before, const Offset& after) {
  DeviceClock line = at_once(before);
  if (after.at > before.at) {
    line.slope =
        (after.middle_ns() - before.middle_ns()) / static_cast<double>(after.at - before.at);
  }
  line.residual_ns = std::max(before.residual_ns(), after.residual_ns());
  line.min_round_trip_ns = std::max(before.min_round_trip_ns, after.min_round_trip_ns);
  line.step_ns = std::max(before.step_ns, after.step_ns);
  return line;
}

}  // namespace moevar::device_clock
