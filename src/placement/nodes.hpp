#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "placement/deepseek_packing.hpp"
#include "placement/problem.hpp"

namespace moevar::placement {

/// Expert groups and nodes as EPLB takes them: those of the problem where every node can have as
/// many groups as the others, else one of each. Source: deepseek-ai/EPLB, rebalance_experts.
struct Hierarchy {
  explicit Hierarchy(const LayerProblem& problem)
      : groups(static_cast<std::size_t>(problem.options().groups)),
        nodes(static_cast<std::size_t>(problem.options().nodes)) {
    if (groups % nodes != 0) {
      groups = nodes = 1;
    }
  }
  std::size_t groups;
  std::size_t nodes;
};

/// Packs groups onto nodes and calls place(experts of the node, its slots) for each node in turn.
///   loads           [experts]
///   experts         working memory
///   expert_of_slot  [slots], split over the nodes in order
template <typename Place>
void place_by_node(const Hierarchy& hierarchy, BalancedPacking& packing,
                   std::span<const float> loads, std::vector<std::uint32_t>& experts,
                   std::span<std::int32_t> expert_of_slot, const Place& place) {
  experts_by_node(packing, loads, hierarchy.groups, hierarchy.nodes, experts);
  const std::size_t experts_each = experts.size() / hierarchy.nodes;
  const std::size_t slots_each = expert_of_slot.size() / hierarchy.nodes;
  for (std::size_t node = 0; node < hierarchy.nodes; ++node) {
    place(std::span<const std::uint32_t>(experts).subspan(node * experts_each, experts_each),
          expert_of_slot.subspan(node * slots_each, slots_each));
  }
}

}  // namespace moevar::placement
