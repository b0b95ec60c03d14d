#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace moevar::placement {

/// How a curve's points were measured.
struct Measurement {
  /// 95 % confidence intervals of their times, µs; a monotone curve may leave them.
  std::vector<double> lower_us;
  std::vector<double> upper_us;
  std::string taken_from = {};  ///< the run that measured them, where it was another one
};

/// f_d(n): a device's expert time in µs for n tokens in one layer. Piecewise linear through the
/// measured points, from (0, 0), non-decreasing; past the last point the last slope goes on.
class SpeedCurve {
 public:
  SpeedCurve() = default;
  /// `tokens` strictly rising and > 0, `time_us` finite and >= 0, both of the same non-zero length.
  /// A dip (noise) is lifted to the running maximum. Throws InputError otherwise.
  SpeedCurve(std::vector<double> tokens, std::vector<double> time_us);
  /// Of a measured one. Throws InputError also where there are not as many intervals as points, or
  /// an end of one is not finite.
  SpeedCurve(std::vector<double> tokens, std::vector<double> time_us, Measurement measurement);

  [[nodiscard]] double time_us(double tokens) const noexcept;
  /// The most tokens that are done within `time_us`; infinity where the curve never exceeds it.
  [[nodiscard]] double tokens_within(double time_us) const noexcept;

  [[nodiscard]] std::span<const double> grid() const noexcept { return tokens_; }
  [[nodiscard]] std::span<const double> times() const noexcept { return time_us_; }
  /// Of the points behind (0, 0); without intervals for a curve that was computed.
  [[nodiscard]] const Measurement& measurement() const noexcept { return measurement_; }
  void note_source(std::string run) { measurement_.taken_from = std::move(run); }

 private:
  std::vector<double> tokens_;  ///< with a leading 0
  std::vector<double> time_us_;
  Measurement measurement_;
};

/// One curve per device of the fleet.
using SpeedModels = std::vector<SpeedCurve>;

/// Token counts at which devices are profiled: a geometric grid of `points` from about one token
/// per expert to `max_tokens`, each a multiple of `slots` × `tile` where it is large enough, so
/// that an even split over the slots sits on tile edges.
std::vector<double> profile_grid(int slots, int tile, double max_tokens, int points = 12);

}  // namespace moevar::placement
