#include "placement/vibe_update.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

namespace moevar::placement {

namespace {

/// Gains below it are the rounding of sums, and would go in circles.
constexpr double kRounding = 1e-12;

class Exchange {
 public:
  Exchange(const LayerProblem& problem, LayerSlots slots)
      : problem_(problem),
        slots_(slots),
        width_(static_cast<std::size_t>(problem.slots_per_device())),
        tokens_(static_cast<std::size_t>(problem.devices())),
        time_us_(tokens_.size()) {
    for (std::size_t d = 0; d < tokens_.size(); ++d) {
      sum_up(d);
    }
  }

  [[nodiscard]] bool within(double epsilon) const {
    const double mean = std::accumulate(time_us_.begin(), time_us_.end(), 0.0) /
                        static_cast<double>(time_us_.size());
    return *std::ranges::max_element(time_us_) <= (1.0 + epsilon) * mean;
  }

  /// False where no exchange lowers the later finish.
  bool apply_best(bool other_partners) {
    const auto slowest =
        static_cast<std::size_t>(std::ranges::max_element(time_us_) - time_us_.begin());
    std::vector<std::size_t> partners(time_us_.size());
    std::iota(partners.begin(), partners.end(), std::size_t{0});
    std::ranges::stable_sort(partners, {}, [&](std::size_t d) { return time_us_[d]; });
    partners.resize(other_partners ? partners.size() : 1);
    return std::ranges::any_of(partners, [&](std::size_t partner) {
      const auto best = best_with(slowest, partner);
      if (best.time_us < time_us_[slowest] * (1.0 - kRounding)) {
        std::swap(slots_.expert[best.slot], slots_.expert[best.other]);
        std::swap(slots_.share[best.slot], slots_.share[best.other]);
        sum_up(slowest);
        sum_up(partner);
        return true;
      }
      return false;
    });
  }

 private:
  struct Choice {
    double time_us = std::numeric_limits<double>::infinity();
    std::size_t slot = 0;
    std::size_t other = 0;
  };

  [[nodiscard]] double load(std::size_t slot) const {
    return problem_.loads()[static_cast<std::size_t>(slots_.expert[slot])] * slots_.share[slot];
  }
  [[nodiscard]] bool holds(std::size_t device, std::int32_t expert) const {
    const auto there = slots_.expert.subspan(device * width_, width_);
    return std::ranges::find(there, expert) != there.end();
  }
  void sum_up(std::size_t device) {
    tokens_[device] = 0.0;
    for (std::size_t slot = device * width_; slot < (device + 1) * width_; ++slot) {
      tokens_[device] += load(slot);
    }
    time_us_[device] = problem_.speeds()[device].time_us(tokens_[device]);
  }

  [[nodiscard]] Choice best_with(std::size_t slowest, std::size_t partner) const {
    const auto order = [&](const Choice& c) {
      return std::tuple(c.time_us, slots_.expert[c.slot], slots_.expert[c.other]);
    };
    const bool replicas = problem_.slots() > problem_.experts();
    Choice best;
    for (std::size_t slot = slowest * width_; slot < (slowest + 1) * width_; ++slot) {
      if (replicas && holds(partner, slots_.expert[slot])) {
        continue;
      }
      for (std::size_t other = partner * width_; other < (partner + 1) * width_; ++other) {
        const double shift = load(slot) - load(other);
        // curves do not fall: without a shift the slowest device gains nothing
        if (shift <= 0.0 || (replicas && holds(slowest, slots_.expert[other]))) {
          continue;
        }
        const double time_us =
            std::max(problem_.speeds()[slowest].time_us(tokens_[slowest] - shift),
                     problem_.speeds()[partner].time_us(tokens_[partner] + shift));
        const Choice choice{time_us, slot, other};
        if (order(choice) < order(best)) {
          best = choice;
        }
      }
    }
    return best;
  }

  const LayerProblem& problem_;
  LayerSlots slots_;
  std::size_t width_;
  std::vector<double> tokens_;
  std::vector<double> time_us_;
};

}  // namespace

int vibe_update(const LayerProblem& problem, double epsilon, int max_swaps, LayerSlots slots,
                bool other_partners) {
  Exchange exchange(problem, slots);
  int swaps = 0;
  while (swaps < max_swaps && !exchange.within(epsilon) && exchange.apply_best(other_partners)) {
    ++swaps;
  }
  return swaps;
}

}  // namespace moevar::placement
