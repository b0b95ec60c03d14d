#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "placement/problem.hpp"

namespace moevar::placement {

/// What the devices of one layer do in every step of a trace under a placement that changes slot by
/// slot: tokens and times, [devices][steps], and the slowest devices of each step.
class StepTimes {
 public:
  /// Keeps a reference to the problem, and writes to the slots.
  StepTimes(const LayerProblem& problem, LayerSlots slots);

  [[nodiscard]] std::size_t devices() const noexcept { return devices_; }
  [[nodiscard]] std::size_t width() const noexcept { return width_; }
  [[nodiscard]] const LayerSlots& slots() const noexcept { return slots_; }
  [[nodiscard]] std::size_t steps() const noexcept { return steps_; }
  [[nodiscard]] bool holds(std::size_t device, std::int32_t expert) const noexcept;

  /// Sum over steps of the slowest device's time, µs.
  [[nodiscard]] double total_us() const noexcept { return total_us_; }
  /// How much the total falls at most if the device took no time at all.
  [[nodiscard]] double within_reach_us(std::size_t device) const noexcept {
    return reach_us_[device];
  }
  /// An expert's loads, [steps].
  [[nodiscard]] std::span<const double> loads(std::int32_t expert) const noexcept {
    return std::span(loads_).subspan(static_cast<std::size_t>(expert) * steps_, steps_);
  }
  /// A slot's tokens, [steps].
  [[nodiscard]] std::span<const double> tokens(std::size_t slot) const noexcept {
    return std::span(slot_tokens_).subspan(slot * steps_, steps_);
  }
  [[nodiscard]] std::span<const double> device_tokens(std::size_t device) const noexcept {
    return std::span(tokens_).subspan(device * steps_, steps_);
  }
  [[nodiscard]] std::span<const double> device_us(std::size_t device) const noexcept {
    return std::span(time_us_).subspan(device * steps_, steps_);
  }
  /// The slowest device's time of a step, of all devices but a and b.
  [[nodiscard]] double others_us(std::size_t step, std::size_t a, std::size_t b) const noexcept;
  /// What moving `change` ([steps], tokens) from device a to b takes off the total.
  [[nodiscard]] double gain_us(std::size_t a, std::size_t b, std::span<const double> change) const;

  /// Exchanges two slots of different devices.
  void exchange(std::size_t slot_a, std::size_t slot_b);
  /// Moves a share from one slot to another of the same expert.
  void shift(std::size_t from, std::size_t to, double share);

 private:
  static constexpr std::size_t kTop = 3;  // whatever two devices do, the slowest of the others
  struct Top {
    std::array<double, kTop> time_us;
    std::array<std::size_t, kTop> device;
  };

  void fill_slot(std::size_t slot);
  void add_up(std::size_t device);
  void rank(std::size_t step);
  void rank_after(std::size_t a, std::size_t b);
  void sum_up();

  const LayerProblem& problem_;
  LayerSlots slots_;
  std::size_t devices_;
  std::size_t width_;
  std::size_t steps_;
  std::vector<double> loads_;        ///< [experts][steps]
  std::vector<double> slot_tokens_;  ///< [slots][steps]
  std::vector<double> tokens_;       ///< [devices][steps]
  std::vector<double> time_us_;      ///< [devices][steps]
  std::vector<Top> top_;             ///< [steps]
  std::vector<double> reach_us_;     ///< [devices]
  double total_us_ = 0.0;
};

}  // namespace moevar::placement
