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

/// DeepSeek's EPLB, in float32 as published. Where Problem::groups is a multiple of nodes: groups
/// packed onto nodes by load, experts replicated inside each node, copies packed onto the node's
/// devices; else the same with one group and one node. Packing: heaviest first into the lightest
/// with room, the first of equals; one slot a device: in order. Replicating: one copy each, every
/// further one of the expert with the largest load per copy. Two copies of an expert may share a
/// device, as there. Devices count as equal. Source: deepseek-ai/EPLB, eplb.py.
void assign_eplb(const LayerProblem& problem, LayerSlots slots);

/// EPLB with the steps in view: a redundant slot goes to the expert that, copied once more, lowers
/// the sum over steps of the largest load per copy most; copies by falling load are dealt to the
/// devices in snake order. Groups and nodes as for eplb, where a node has experts enough for all
/// slots of a device. Open in the source's description, chosen here: where no copy lowers that sum
/// (ties at the top), the largest load per copy; no more copies than devices while another expert
/// can be copied. Source: SGLang, srt/eplb/eplb_algorithms, deepseek_vec.
void assign_eplb_steps(const LayerProblem& problem, LayerSlots slots);

/// Aurora's rule for unequal devices (arXiv 2410.17043: load-sorted experts meet speed-sorted
/// devices, one each), for any number of experts: copies by falling load are dealt in snake order
/// to the devices by rising time for N/G tokens. The snake is ours.
void assign_sorted(const LayerProblem& problem, LayerSlots slots);

/// ViBE's initial placement (arXiv 2606.00735, Algorithm 1, phase 2), slot-capped: targets in
/// proportion to measured speed, experts by falling load to the largest shortfall among devices
/// with a free slot. Open in the paper, chosen here: n_ref = N/G tokens, the load a device really
/// sees; the printed greedy has no slot limit, the paper's evaluation has equal counts, so full
/// devices no longer compete. Problem::n_ref_printed: n_ref = N/E.
void assign_vibe(const LayerProblem& problem, LayerSlots slots);

/// ViBE's greedy with targets that finish together, τ_d = f_d⁻¹(t*): right also where devices have
/// a fixed cost, which targets in proportion to speed under-correct. Ours.
void assign_vibe_finish(const LayerProblem& problem, LayerSlots slots);

/// ViBE's greedy, then its incremental update (vibe_update.hpp) until no exchange helps; or, from
/// Problem::from, that update alone with the paper's tolerance: what ViBE does on drift.
void assign_vibe_swap(const LayerProblem& problem, LayerSlots slots);

/// Heaviest copy first to the device whose cost, mean + z·σ of its tokens over the steps with the
/// covariance of its experts in σ, it leaves lowest; replica counts by a tree search (depth 4,
/// width 8). Source: FlashLB in vllm-ascend, policy_flashlb.py. The tree's branches are ours: a
/// part of the redundant slots goes to the experts of highest mean + z·σ per copy, the first of it
/// to the first ... eighth of them. Devices count as equal. Without a trace σ = 0.
void assign_flashlb(const LayerProblem& problem, LayerSlots slots);

/// GEM (arXiv 2605.19945) as reconstructed from its abstract and summaries, not GEM itself: lowers
/// Σ over steps of max_d L_d(tokens), L_d at whole tiles of 128 tokens (gem_search.hpp). Starts
/// with consistent experts (active in at least half of the steps), then temporal ones, each where
/// it raises the score least; swaps; eight random restarts by the problem's seed; the best is kept.
/// On large fleets no restarts (gem_like.cpp), and no more swaps looked at than kMostSwaps.
void assign_gem_like(const LayerProblem& problem, LayerSlots slots);

/// HarMoEny (arXiv 2506.12417): per step, from the contiguous owners, shifts tokens of the fullest
/// device's fullest expert to the emptiest until one of them holds the mean; stops when that expert
/// holds fewer than 150 tokens or the emptiest falls short by fewer. Without its source axis. A
/// device's slots are its contiguous experts, then those it fetched (moves_between a contiguous
/// placement and this: the cost); slots to spare repeat its first expert with share 0.
Placement plan_harmoeny(const Problem& step);

/// The same with f_d⁻¹(t*) (targets.hpp) in place of the mean: shares by speed. Ours.
Placement plan_harmoeny_speed(const Problem& step);

/// Ours: the sum over steps of the slowest device's time, with every device's whole speed curve,
/// replicas cut and placed for it and their shares set by speed. mean_search.hpp says how one load
/// is placed near its bound, trace_search.hpp how a trace is; with both, the trace search begins at
/// the better of two placements, one for the mean loads and one with replicas for the experts'
/// peaks. Keeps to Problem::receive_budget; plans for even shares where Problem::even_shares says
/// so.
void assign_minmax(const LayerProblem& problem, LayerSlots slots);

/// minmax for the one step of the problem: what no placement made in advance can expect to beat.
Placement plan_oracle(const Problem& step);

}  // namespace moevar::placement
