#pragma once

#include <cstddef>
#include <map>
#include <vector>

namespace moevar::run {

/// How much longer real steps take than speed models say, stalls of the machine included: every
/// value seen, by the tokens of its step.
class StepExcess {
 public:
  void add(double tokens, double excess_us);

  /// The part `u` in [0, 1) of all values seen at so many tokens, 0 the smallest; between two sizes
  /// linear between both, beyond the last as there. 0 where nothing was seen.
  [[nodiscard]] double at(double tokens, double u) const;

 private:
  std::map<double, std::vector<double>> seen_;  ///< rising, by tokens of a step
};

}  // namespace moevar::run
