#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "placement/placement.hpp"

// A time T is ruled out when it contradicts what every placement must satisfy. With cap_d(T) the
// most tokens that device d does within T:
//   1. all devices together do all tokens: Σ_d cap_d(T) >= N;
//   2. an expert heavier than the fastest device's cap needs replicas: at least as many as the
//      largest caps that add up to its load; together they fit the slots;
//   3. without spare slots every device holds exactly S experts, whole. Of the k heaviest experts a
//      device holds at most q, the most for which the q lightest of them and the S − q lightest of
//      all stay under its cap; over all devices these must make room for k;
//   4. without spare slots, the k heaviest experts, where no two go together even on the fastest
//      device, lie on k devices; with the lightest of all beside them they fit the k largest caps.
// Each condition only ever gets easier with T, so the bound is the least T that passes them all.

namespace moevar::placement {

namespace {

constexpr double kPrecision = 1e-10;  ///< relative
constexpr double kSlotPrecision =
    1e-9;  ///< of conditions 2 to 4; kJustAbove in mean_search.cpp is more

/// SpeedCurve::tokens_within() of a fleet for many times that lie close together: curves in one
/// piece of memory, and of each the segment in which the last time fell.
class Capacities {
 public:
  explicit Capacities(const SpeedModels& speeds) {
    first_.reserve(speeds.size() + 1);
    first_.push_back(0);
    for (const auto& curve : speeds) {
      tokens_.insert(tokens_.end(), curve.grid().begin(), curve.grid().end());
      times_.insert(times_.end(), curve.times().begin(), curve.times().end());
      first_.push_back(tokens_.size());
    }
    segment_.resize(speeds.size(), 1);
  }

  [[nodiscard]] std::size_t devices() const noexcept { return segment_.size(); }

  double within(std::size_t device, double time_us) noexcept {
    const double* tokens = &tokens_[first_[device]];
    const double* times = &times_[first_[device]];
    const std::size_t last = first_[device + 1] - first_[device] - 1;
    std::size_t& i = segment_[device];
    while (i > 1 && times[i - 1] > time_us) {
      --i;
    }
    while (i < last && times[i] <= time_us) {
      ++i;
    }
    const double rise = times[i] - times[i - 1];
    return rise <= 0.0
               ? std::numeric_limits<double>::infinity()
               : tokens[i - 1] + (tokens[i] - tokens[i - 1]) * (time_us - times[i - 1]) / rise;
  }

  double of_all(double time_us) noexcept {
    double sum = 0.0;
    for (std::size_t device = 0; device < devices(); ++device) {
      sum += within(device, time_us);
    }
    return sum;
  }

 private:
  std::vector<std::size_t> first_;  ///< where a device's curve begins
  std::vector<double> tokens_;
  std::vector<double> times_;
  std::vector<std::size_t> segment_;
};

/// Condition 1 as an equation: the largest time known to be too short. False position (Illinois),
/// as what is done is piecewise linear but for the jumps where a curve is flat.
double fractional_finish_us(double tokens, const SpeedModels& speeds, Capacities& capacities) {
  const double even = tokens / static_cast<double>(speeds.size());
  double low = std::numeric_limits<double>::infinity();
  double high = 0.0;
  for (const auto& curve : speeds) {
    const double time = curve.time_us(even);
    low = std::min(low, time);
    high = std::max(high, time);
  }
  low *= 1.0 - kPrecision;
  double missing_low = capacities.of_all(low) - tokens;
  double missing_high = capacities.of_all(high) - tokens;
  if (missing_low >= 0.0) {  // a flat start: no time at all is needed, or the curves jump
    return low;
  }
  for (int i = 0; i < 200 && high - low > kPrecision * high; ++i) {
    const bool slope = std::isfinite(missing_high) && missing_high > missing_low && i % 8 != 7;
    double middle = slope ? low - missing_low * (high - low) / (missing_high - missing_low)
                          : 0.5 * (low + high);
    // one side would else creep: stay a little inside
    middle = std::clamp(middle, low + 0.2 * kPrecision * high, high - 0.2 * kPrecision * high);
    const double missing = capacities.of_all(middle) - tokens;
    if (missing < 0.0) {
      low = middle;
      missing_low = missing;
      missing_high *= 0.5;
    } else {
      high = middle;
      missing_high = missing;
      missing_low *= 0.5;
    }
  }
  return low;
}

/// Conditions 2 to 4 for one layer.
class SlotRules {
 public:
  SlotRules(std::span<const double> loads, Capacities& capacities, int slots_per_device)
      : falling_(loads.begin(), loads.end()),
        capacities_(capacities),
        width_(static_cast<std::size_t>(slots_per_device)),
        slots_(capacities.devices() * width_) {
    caps_.reserve(capacities.devices());
    std::ranges::sort(falling_, std::greater<>{});
    sum_.resize(falling_.size() + 1, 0.0);
    std::partial_sum(falling_.begin(), falling_.end(), sum_.begin() + 1);
    lightest_.resize(falling_.size() + 1, 0.0);
    std::partial_sum(falling_.rbegin(), falling_.rend(), lightest_.begin() + 1);
    for (std::size_t d = 0; d < capacities.devices(); ++d) {
      caps_.push_back({0.0, d});
    }
    cap_sum_.resize(capacities.devices() + 1);
  }

  [[nodiscard]] bool allow(double time_us) {
    // hardly changes from one time to the next, so the order is kept
    for (auto& cap : caps_) {
      cap.tokens = capacities_.within(cap.device, time_us);
    }
    if (slots_ != falling_.size() &&
        falling_.front() <= std::ranges::max_element(caps_, {}, &Cap::tokens)->tokens) {
      return true;
    }
    if (!std::ranges::is_sorted(caps_, std::greater<>{}, &Cap::tokens)) {
      std::ranges::sort(caps_, std::greater<>{}, &Cap::tokens);
    }
    cap_sum_[0] = 0.0;
    for (std::size_t d = 0; d < caps_.size(); ++d) {
      cap_sum_[d + 1] = cap_sum_[d] + caps_[d].tokens;
    }
    return slots_ == falling_.size() ? heaviest_find_room() && loners_fit() : replicas_fit();
  }

 private:
  struct Cap {
    double tokens = 0.0;
    std::size_t device = 0;
  };

  /// Condition 2.
  [[nodiscard]] bool replicas_fit() const {
    std::size_t needed = falling_.size();
    for (const double load : falling_) {
      if (load <= caps_.front().tokens) {
        break;
      }
      const auto enough = std::ranges::lower_bound(cap_sum_, load);
      if (enough == cap_sum_.end()) {
        return false;
      }
      needed += static_cast<std::size_t>(enough - cap_sum_.begin()) - 1;
      if (needed > slots_) {
        return false;
      }
    }
    return true;
  }

  /// Tokens of the q lightest of the k heaviest experts with the lightest of all beside them.
  [[nodiscard]] double least(std::size_t k, std::size_t q) const {
    return std::accumulate(falling_.begin() + static_cast<std::ptrdiff_t>(k - q),
                           falling_.begin() + static_cast<std::ptrdiff_t>(k),
                           lightest_[width_ - q]);
  }

  /// Condition 3.
  [[nodiscard]] bool heaviest_find_room() const {
    constexpr std::size_t kMostTogether = 4;  // more heavy experts on a device: condition 1 rules
    const std::size_t devices = caps_.size();
    const std::size_t together = std::min(kMostTogether, width_);
    // of the k heaviest, the q lightest only ever get lighter with k, and more devices able
    std::array<std::size_t, kMostTogether + 1> able_for{};
    for (std::size_t k = 1; k <= devices * together && k + width_ <= falling_.size(); ++k) {
      std::size_t room = 0;
      for (std::size_t q = 1; q <= together && room < k && q <= k; ++q) {
        const double needed = least(k, q);
        std::size_t& able = able_for[q];
        while (able < devices && caps_[able].tokens >= needed) {
          ++able;
        }
        room += able;
        if (able == 0) {
          break;
        }
        if (q == together && able == devices) {
          room = k;  // more than `together` of them may share a device: not looked at
        }
      }
      if (room < k && !may_hold_more(k, together)) {
        return false;
      }
    }
    return true;
  }

  /// Condition 4.
  [[nodiscard]] bool loners_fit() const {
    for (std::size_t k = 1; k <= caps_.size() && k * width_ <= falling_.size(); ++k) {
      if (k > 1 && width_ > 1 && least(k, 2) <= caps_.front().tokens) {
        break;
      }
      const std::size_t beside = k * (width_ - 1);
      if (sum_[k] + lightest_[beside] > cap_sum_[k]) {
        return false;
      }
    }
    return true;
  }

  /// Whether some device may hold more of the k heaviest than were counted.
  [[nodiscard]] bool may_hold_more(std::size_t k, std::size_t together) const {
    return together < width_ && together < k && least(k, together + 1) <= caps_.front().tokens;
  }

  std::vector<double> falling_;
  std::vector<double> sum_;       ///< of the k heaviest
  std::vector<double> lightest_;  ///< of the k lightest: no differences of large sums
  Capacities& capacities_;
  std::size_t width_;
  std::size_t slots_;
  std::vector<Cap> caps_;        ///< by falling tokens
  std::vector<double> cap_sum_;  ///< of the largest
};

double bound_us(std::span<const double> loads, const SpeedModels& speeds, Capacities& capacities,
                int slots_per_device) {
  const double tokens = std::accumulate(loads.begin(), loads.end(), 0.0);
  if (!(tokens > 0.0)) {
    return 0.0;
  }
  double low = fractional_finish_us(tokens, speeds, capacities);
  SlotRules rules(loads, capacities, slots_per_device);
  if (rules.allow(low)) {
    return low;
  }
  double high = low;
  do {
    high *= 2.0;
    if (high == 0.0) {
      high = std::numeric_limits<double>::min();
    }
  } while (std::isfinite(high) && !rules.allow(high));
  for (int i = 0; i < 200 && high - low > kSlotPrecision * high; ++i) {
    const double middle = 0.5 * (low + high);
    (rules.allow(middle) ? high : low) = middle;
  }
  return low;
}

}  // namespace

double lower_bound_us(std::span<const double> loads, const SpeedModels& speeds,
                      int slots_per_device) {
  Capacities capacities(speeds);
  return bound_us(loads, speeds, capacities, slots_per_device);
}

std::vector<double> lower_bounds(const Problem& problem, int slots_per_device) {
  Capacities capacities(problem.speeds);
  std::vector<double> bounds;
  for (int layer = 0; layer < problem.layers(); ++layer) {
    const LayerProblem part(problem, layer);
    double sum = 0.0;
    for (int step = 0; step < part.steps(); ++step) {
      sum += bound_us(part.step(step), problem.speeds, capacities, slots_per_device);
    }
    bounds.push_back(sum / part.steps());
  }
  return bounds;
}

}  // namespace moevar::placement
