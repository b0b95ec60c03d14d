#pragma once

#include <cstdint>

#include "base/tensor.hpp"

namespace moevar::workload {

/// Tokens routed to every expert: [steps][layers][experts]. A token counts once for each of its
/// top_k experts, so each [step][layer] row sums to tokens × top_k, and no element exceeds tokens.
using Loads = Tensor<std::uint32_t, 3>;

/// Mean tokens per layer call and expert: [layers][experts], what policies that know no steps plan
/// with.
Matrix<double> mean_loads(const Loads& loads);

}  // namespace moevar::workload
