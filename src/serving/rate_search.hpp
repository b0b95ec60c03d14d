#pragma once

#include <functional>
#include <optional>
#include <vector>

namespace moevar::serving {

struct RateEvaluation {
  double rate_rps = 0.0;
  double attainment = 0.0;
};

/// What find_rate found. Three outcomes: both `kept` and `missed` (the target is crossed between
/// them), no `kept` (missed even at the lowest rate tried), no `missed` (kept even at the highest).
struct RateSearch {
  /// Where attainment crosses the target: linear between `kept` and `missed`. Empty without both.
  std::optional<double> rate_rps;
  std::optional<RateEvaluation> kept;       ///< the bracket's lower end; attainment >= target
  std::optional<RateEvaluation> missed;     ///< its upper end; attainment < target
  std::vector<RateEvaluation> evaluations;  ///< all, in the order of the search
};

struct RateRange {
  double low_rps = 0.0;
  double high_rps = 0.0;
};

/// Times that a range is doubled, or halved, before a search gives up.
inline constexpr int kMostDoublings = 12;
inline constexpr double kLeastTolerance = 1e-6;

/// The highest request rate that keeps `target` attainment, as the papers' crossings (ViBE, arXiv
/// 2606.00735): from `start`, doubles the upper end until it misses the target or halves the lower
/// one until it keeps it, then bisects until high ÷ low − 1 <= tolerance, and interpolates.
///
/// Attainment over rate need not fall everywhere (measured curves rise by points here and there).
/// The bracket ends in a kept rate below a missed one, so between its ends there is a crossing; of
/// several, the search finds one and doesn't see the others: repeat it with other seeds.
///
/// `attainment_at(rate)` is in [0, 1] and called once for each rate. Throws InputError for a target
/// outside (0, 1], a range that is not 0 < low < high, a tolerance below kLeastTolerance, and for
/// an attainment outside [0, 1].
RateSearch find_rate(const std::function<double(double rate_rps)>& attainment_at, double target,
                     RateRange start, double tolerance = 0.02);

}  // namespace moevar::serving
