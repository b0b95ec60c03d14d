#pragma once

#include <span>
#include <vector>

namespace moevar::stats {

/// The non-decreasing values nearest to `values` by the sum of squares, as many of them. Values
/// must not hold NaN. Source: pool adjacent violators (Ayer, Brunk, Ewing, Reid and Silverman,
/// Ann. Math. Statist. 26, 1955).
std::vector<double> isotonic_fit(std::span<const double> values);

}  // namespace moevar::stats
