#pragma once

#include <chrono>

namespace moevar::record {

/// Keeps writing a whole that grows with every phase from taking longer and longer: where a study
/// has many phases, as seldom as it takes for it to cost no more than a tenth of the time.
class Pace {
 public:
  explicit Pace(int planned_phases) : always_(planned_phases <= kFew) {}

  /// Calls `write` where it is due. Returns whether it has.
  template <class Write>
  bool whenever_due(const Write& write) {
    constexpr int kTimes = 10;
    const auto start = Clock::now();
    if (!always_ && start < due_) {
      return false;
    }
    write();
    const auto end = Clock::now();
    due_ = end + kTimes * (end - start);
    return true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int kFew = 256;
  bool always_;
  Clock::time_point due_;  ///< the first time at once
};

}  // namespace moevar::record
