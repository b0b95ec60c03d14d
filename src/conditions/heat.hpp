#pragma once

#include <span>
#include <vector>

#include "conditions/plant.hpp"
#include "study/study.hpp"
#include "timeline/telemetry.hpp"

/// Bringing a fleet to a thermal state, and knowing that it is there.
namespace moevar::conditions {

/// When a device counts as steady: over the window its temperature's slope is below `slope_c_min`,
/// and the mean SM clocks of the window's halves differ by less than `clock_change`.
struct HeatOptions {
  double window_s = 60.0;
  double limit_s = 900.0;  ///< longest that reaching a state may take
  double slope_c_min = 1.0;
  double clock_change = 0.005;  ///< relative

  /// Time between two readings.
  [[nodiscard]] double poll_s() const { return window_s / kReadings; }
  static constexpr int kReadings = 30;  ///< in a window
};

/// What a window says of one device.
struct Verdict {
  bool steady = false;
  double slope_c_min = timeline::kUnknown;  ///< NaN: the window is not full yet
};

/// The readings of a fleet over the last window. Pure.
class SteadyWindow {
 public:
  explicit SteadyWindow(const HeatOptions& options) : options_(options) {}

  /// One reading of every device, later than those before.
  void add(std::span<const timeline::Reading> fleet);
  /// [device]; nobody is steady before the window is full, nor where a temperature or clock was not
  /// readable.
  [[nodiscard]] std::vector<Verdict> judge() const;

 private:
  /// One moment of the whole fleet.
  struct Moment {
    double time_s = 0.0;
    std::vector<double> temperature_c;
    std::vector<double> sm_clock_mhz;
  };
  [[nodiscard]] Verdict judge(std::size_t device) const;

  HeatOptions options_;
  std::vector<Moment> moments_;  ///< oldest first
};

/// How reaching a state went.
struct HeatReport {
  double seconds = 0.0;  ///< until all were steady, or the limit came
  double window_s = 0.0;
  std::vector<Verdict> devices;
  [[nodiscard]] bool steady() const;
};

/// Lets the fleet cool (ambient), burn (soaked), or idle among burning neighbours until every
/// device is steady or the limit has come. Collective. Throws EnvironmentError where temperatures
/// cannot be read.
HeatReport bring_to(Plant& plant, study::Heat heat, const HeatOptions& options);

/// Puts back a fleet that has left the temperatures at which bring_to() left it: cools what is more
/// than 1 °C too warm for ambient and neighbours, burns where a device is more than 1 °C too cool
/// for soaked; at most `limit_s`. Collective. Returns the seconds that it took.
double hold(Plant& plant, study::Heat heat, std::span<const double> plateau_c,
            const HeatOptions& options);

}  // namespace moevar::conditions
