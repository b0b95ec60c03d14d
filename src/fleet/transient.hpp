#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "fleet/gpu_family.hpp"
#include "fleet/gpu_physics.hpp"
#include "timeline/telemetry.hpp"

namespace moevar::fleet {

/// Modelled GPUs of one family in time: two thermal masses a GPU, a power sensor with its window
/// and period, the regulator that holds the cap on what the sensor sees, thermal slow-down and its
/// release (E1 ... E6, E8). Where gpu_physics.hpp says where a GPU settles, this says how it gets
/// there. One process, no communication; deterministic.
///
/// The GPUs (0, 1), (2, 3), ... share a slot pair and heat each other's air; nothing else joins
/// them. A fleet may therefore be split over several objects at even indices without changing a
/// bit.
///
/// Time passes in whole steps of 5 ms. What is asked for beyond them is kept: it completes the next
/// step, in which a GPU does the mean of what it was asked to do. Readings and counters are as of
/// the last whole step.
class Transient {
 public:
  /// The GPUs at rest: highest clock, idle, both masses settled, the family's default cap. Throws
  /// InputError if the family's sensor averages over more than 40 ms.
  Transient(const GpuFamily& family, std::vector<GpuTraits> gpus);
  ~Transient();
  Transient(Transient&&) noexcept;
  Transient& operator=(Transient&&) noexcept;
  Transient(const Transient&);
  Transient& operator=(const Transient&);

  [[nodiscard]] std::size_t size() const noexcept { return gpus_.size(); }
  /// Since construction; all that advance() was asked for.
  [[nodiscard]] double time_s() const noexcept;

  /// Of all GPUs, from the regulator's next step on. Whether the family accepts it is the caller's
  /// to check.
  void set_cap(double cap_w) noexcept { cap_w_ = cap_w; }
  /// Who heats the air of each GPU (P_up of E3): NaN, or an empty span for all: the partner in the
  /// pair at its power of that moment, itself where it has none; a number: a neighbour outside this
  /// object that draws so many watts. Throws InputError unless there is one a GPU, or none.
  void set_neighbours(std::span<const double> neighbour_w);
  /// Something other than heat makes the hardware halve GPU i's clock (HwSlowdown), at once; the
  /// regulator may then lower the clock that is halved, not raise it.
  void set_hw_slowdown(std::size_t i, bool on);

  /// Lets time pass, GPU i doing activity[i]; one element: all do the same. Throws InputError if
  /// there is another number of them, or `seconds` is no duration.
  void advance(double seconds, std::span<const Activity> activity);
  /// Every GPU where solve_steady() has it under the cap, without time passing: clock (the grid
  /// clock below), temperatures and sensor; the regulator goes on from there. A halved clock stays
  /// halved and cools the GPU.
  void settle(std::span<const Activity> activity);

  /// Sensor value as readers see it, grid clock, die temperature, reasons. `time_ns` is time_s().
  [[nodiscard]] timeline::Reading reading(std::size_t i) const;
  /// True energy; time with each reason, which is counted in steps of the regulator (20 ms).
  [[nodiscard]] timeline::Counters counters(std::size_t i) const;
  /// True power in the last step.
  [[nodiscard]] double power_w(std::size_t i) const;
  /// Shut down by its own heat: clock and power are 0 from then on. What that means for the job is
  /// the caller's to say.
  [[nodiscard]] bool failed(std::size_t i) const;

  /// Mean over the time since the last mark(), or since construction. The clock of now where no
  /// time has passed.
  [[nodiscard]] double mean_clock_mhz(std::size_t i) const;
  void mark();

 private:
  struct Block;

  /// E1, relative to the family's voltage, at one grid clock. f is in MHz, v relative.
  struct GridClock {
    double v2 = 0.0;
    double f_v2 = 0.0;
    double v2_slope = 0.0;    ///< d(v²)/df
    double f_v2_slope = 0.0;  ///< d(f v²)/df
  };

  void start(std::size_t i);
  void set_activity(std::span<const Activity> activity);
  void integrate(std::int64_t steps);
  void pass(Block& block, std::int64_t begin, std::int64_t end) const;
  void sense(Block& block) const;
  void protect(Block& block, std::size_t lane, bool ceiling_due) const;
  void regulate(Block& block, std::size_t lane) const;
  void linearise(Block& block, std::size_t lane) const;
  void check_activity(std::span<const Activity> activity) const;

  GpuFamily family_;
  std::vector<GpuTraits> gpus_;
  std::vector<Block> blocks_;
  std::vector<GridClock> grid_;  ///< [clock / f_step_mhz]
  std::vector<double> neighbour_w_;
  std::int32_t lowest_ = 0;  ///< grid indices of f_min and f_max
  std::int32_t highest_ = 0;
  std::int64_t window_steps_ = 1;
  std::int64_t sensor_steps_ = 1;
  double cap_w_ = 0.0;

  std::int64_t steps_ = 0;  ///< whole steps passed
  std::int64_t mark_ = 0;   ///< steps_ at the last mark()
  /// Time asked for beyond them, and what each GPU did in it on average.
  std::int64_t pending_ns_ = 0;
  std::vector<Activity> pending_;
};

}  // namespace moevar::fleet
