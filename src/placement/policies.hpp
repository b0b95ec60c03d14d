#pragma once

#include <cstdint>

#include "placement/placement.hpp"

/// One function per policy, each in a file of its own; policies.cpp lists them. A policy that its
/// source defines without replicas places EPLB's copies (replicas.hpp) where there are more slots
/// than experts.
namespace moevar::placement {

/// Experts in order: device d holds experts d·S ... d·S + S − 1. What engines do by default.
void assign_contiguous(const LayerProblem& problem, LayerSlots slots);

/// Experts dealt out in turn: expert e lies on device e mod G. Source: vLLM PR 23745.
void assign_round_robin(const LayerProblem& problem, LayerSlots slots);

/// A permutation per layer, drawn by the problem's seed.
void assign_random(const LayerProblem& problem, LayerSlots slots);

/// DeepSeek's EPLB without redundant experts: heaviest first into the lightest device with a free
/// slot; the first device wins ties. Devices count as equal. Source: deepseek-ai/EPLB,
/// balanced_packing.
void assign_eplb(const LayerProblem& problem, LayerSlots slots);

/// ViBE's initial placement (arXiv 2606.00735, Algorithm 1, phase 2), slot-capped: targets in
/// proportion to measured speed, experts by falling load to the largest shortfall among devices
/// with a free slot. Open in the paper, chosen here: n_ref = N/G tokens, the load a device really
/// sees; the printed greedy has no slot limit, the paper's evaluation has equal counts, so full
/// devices no longer compete.
void assign_vibe(const LayerProblem& problem, LayerSlots slots);

/// minmax
void assign_minmax(const LayerProblem& problem, LayerSlots slots);

}  // namespace moevar::placement
