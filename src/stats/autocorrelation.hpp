#pragma once

#include <span>

namespace moevar::stats {

/// As how many independent values a stationary series counts for its mean: n ÷ (1 + 2 Σ ρ(k)), from
/// 1 to n, where the sum of the autocorrelations ρ ends with the first pair ρ(2m) + ρ(2m + 1) that
/// is not positive, pairs not being allowed to rise (Geyer 1992, initial monotone sequence). A
/// series without variance counts fully.
double effective_sample_size(std::span<const double> series);

}  // namespace moevar::stats
