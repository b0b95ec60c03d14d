#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace moevar::run {

/// Notices that a device of a fleet has left its speed model, from the ratios of measured to
/// predicted time in steps of like size. A layer has a ratio of its own, for how its tokens split
/// over the device's experts and tiles does not change while the placement stays; so each layer's
/// mean over an interval is held against what it was in the first ones. A device has left its model
/// where, in two intervals running, the mean change over layers is beyond kLeft and beyond kSure
/// times its standard error, which layers that scatter make large. One layer alone has no scatter:
/// four intervals running decide then.
class SpeedWatch {
 public:
  static constexpr double kLeft = 0.05;
  static constexpr double kSure = 5.0;
  static constexpr int kInterval = 10;  ///< steps
  static constexpr int kFirst = 3;      ///< intervals that give the reference

  explicit SpeedWatch(std::size_t layers);

  /// A step's ratios, [layers]; 0 where the layer had no tokens.
  void step(const std::vector<double>& ratios);

  /// Present ÷ former time where it has left its model.
  [[nodiscard]] std::optional<double> left() const noexcept { return left_; }

 private:
  void end_interval();

  std::vector<double> sums_;  ///< [layers], of the interval
  std::vector<int> counts_;
  std::vector<double> first_sums_;  ///< [layers], of the first intervals' means
  std::vector<int> first_counts_;
  int steps_ = 0;
  int intervals_ = 0;
  int running_ =
      0;  ///< intervals in which it looked as if it had left, its sign being the change's
  std::optional<double> left_;
};

}  // namespace moevar::run
