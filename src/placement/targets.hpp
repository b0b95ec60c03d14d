#pragma once

#include <vector>

#include "placement/speed_model.hpp"

namespace moevar::placement {

/// τ_d = N · s_d / Σ s with s_d = 1 / f_d(n_ref); [devices], tokens, with sum N = `tokens`. A
/// device whose model shows no time at all leaves nothing to tell speeds by: then the targets are
/// equal. Source: ViBE (arXiv 2606.00735), Algorithm 1, phase 2.
std::vector<double> speed_targets(const SpeedModels& speeds, double tokens, double n_ref);

/// τ_d = f_d⁻¹(t*), t* being the time at which all devices together have done `tokens`: devices
/// loaded so finish together, whatever fixed cost their curves have. [devices], tokens, with sum
/// `tokens`. Where curves are flat at t*, so that less than all of what fits is needed, all devices
/// take the same part of what t* adds.
std::vector<double> finish_targets(const SpeedModels& speeds, double tokens);

}  // namespace moevar::placement
