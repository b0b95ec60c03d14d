#pragma once

#include "placement/problem.hpp"

namespace moevar::placement {

/// Tolerance of an update on drift. Source: ViBE (arXiv 2606.00735), Algorithm 2's ε.
constexpr double kVibeEpsilon = 0.03;

/// ViBE's incremental update of one layer (arXiv 2606.00735, Algorithm 2): exchanges the pair of
/// experts of the slowest and the fastest device that lowers the later of the two finishes most,
/// until the slowest device is within (1 + epsilon) of the mean time or no exchange helps. Expert
/// counts per device are kept, and no exchange puts two copies of an expert on a device.
/// Open in the paper, chosen here: the tolerance is tested first; only a strict gain is applied;
/// the lower experts of equals; at most `max_swaps`. As printed, the slowest and the fastest device
/// are the only pair tried; `other_partners` goes on with the next fastest where they have no gain.
///   slots   a whole assignment with its shares; changed in place
/// Returns the number of exchanges. Plans with the mean loads.
int vibe_update(const LayerProblem& problem, double epsilon, int max_swaps, LayerSlots slots,
                bool other_partners = false);

}  // namespace moevar::placement
