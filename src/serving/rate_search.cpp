#include "serving/rate_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::serving {

namespace {

void check(double target, RateRange start, double tolerance) {
  const bool usable =
      target > 0.0 && target <= 1.0 && start.low_rps > 0.0 && start.high_rps > start.low_rps &&
      std::isfinite(std::ldexp(start.high_rps, kMostDoublings)) && tolerance >= kLeastTolerance;
  if (!usable) {
    throw InputError(
        fmt::format("rate search: target {}, from {} to {} requests/s, tolerance {}; expected a "
                    "target in (0, 1], 0 < low < high, a tolerance from {} on",
                    target, start.low_rps, start.high_rps, tolerance, kLeastTolerance));
  }
}

class Search {
 public:
  Search(const std::function<double(double)>& attainment_at, double target)
      : attainment_at_(attainment_at), target_(target) {}

  /// Evaluates a rate and takes it as the bracket's end on its side.
  bool keeps(double rate_rps) {
    const double attainment = attainment_at_(rate_rps);
    if (!(attainment >= 0.0 && attainment <= 1.0)) {
      throw InputError(fmt::format("rate search: attainment {} at {} requests/s; expected 0 to 1",
                                   attainment, rate_rps));
    }
    const bool kept = attainment >= target_;
    const RateEvaluation evaluation{rate_rps, attainment};
    found_.evaluations.push_back(evaluation);
    (kept ? found_.kept : found_.missed) = evaluation;
    return kept;
  }

  void bracket(RateRange start) {
    if (keeps(start.low_rps)) {
      double rate = start.high_rps;
      for (int doublings = 0; keeps(rate) && doublings < kMostDoublings; ++doublings) {
        rate *= 2.0;
      }
    } else {
      double rate = start.low_rps / 2.0;
      for (int halvings = 1; !keeps(rate) && halvings < kMostDoublings; ++halvings) {
        rate /= 2.0;
      }
    }
  }

  void bisect(double tolerance) {
    while (found_.kept && found_.missed &&
           found_.missed->rate_rps / found_.kept->rate_rps - 1.0 > tolerance) {
      keeps(std::midpoint(found_.kept->rate_rps, found_.missed->rate_rps));
    }
  }

  RateSearch result() {
    if (found_.kept && found_.missed) {
      const auto [low, at_low] = *found_.kept;
      const auto [high, at_high] = *found_.missed;
      found_.rate_rps = low + (at_low - target_) / (at_low - at_high) * (high - low);
    }
    return std::move(found_);
  }

 private:
  const std::function<double(double)>& attainment_at_;
  double target_;
  RateSearch found_;
};

}  // namespace

RateSearch find_rate(const std::function<double(double rate_rps)>& attainment_at, double target,
                     RateRange start, double tolerance) {
  check(target, start, tolerance);
  Search search(attainment_at, target);
  search.bracket(start);
  search.bisect(tolerance);
  return search.result();
}

}  // namespace moevar::serving
