#include <cstdint>
#include <span>
#include <vector>

#include "placement/deepseek_packing.hpp"
#include "placement/nodes.hpp"
#include "placement/policies.hpp"

namespace moevar::placement {

namespace {

/// Working memory, kept from layer to layer: the whole solve takes a few µs a layer, of which
/// allocating would be a good part.
struct Scratch {
  BalancedPacking packing;
  MinTree heaviest;
  std::vector<float> loads;
  std::vector<std::uint32_t> experts;         ///< by node
  std::vector<std::uint32_t> expert_of_copy;  ///< of one node, counted in `experts`
  std::vector<std::uint32_t> copies;          ///< [experts of one node]
  std::vector<float> load_of_copy;
};

/// One copy of every expert, then each further one of the expert with the largest load per copy;
/// the lower expert of equals. Fills expert_of_copy and load_of_copy up to `slots`.
/// `experts` are those of one node.
void replicate(std::span<const std::uint32_t> experts, std::size_t slots, Scratch& s) {
  const auto load = [&](std::size_t i) { return s.loads[experts[i]]; };
  s.expert_of_copy.resize(slots);
  s.load_of_copy.resize(slots);
  s.copies.assign(experts.size(), 1);
  for (std::size_t i = 0; i < experts.size(); ++i) {
    s.expert_of_copy[i] = static_cast<std::uint32_t>(i);
  }
  if (slots > experts.size()) {
    // a non-negative float's bits, inverted, fall as it rises
    const auto key = [](float value, std::uint32_t i) {
      return packed_key(value, i) ^ 0xFFFFFFFF'00000000ULL;
    };
    s.heaviest.reset(experts.size());
    for (std::uint32_t i = 0; i < experts.size(); ++i) {
      s.heaviest.set(i, key(load(i), i));
    }
    s.heaviest.build();
    for (std::size_t copy = experts.size(); copy < slots; ++copy) {
      const auto i = key_index(s.heaviest.smallest());
      s.expert_of_copy[copy] = i;
      s.heaviest.update(i, key(load(i) / static_cast<float>(++s.copies[i]), i));
    }
  }
  for (std::size_t copy = 0; copy < slots; ++copy) {
    const auto i = s.expert_of_copy[copy];
    s.load_of_copy[copy] = load(i) / static_cast<float>(s.copies[i]);
  }
}

}  // namespace

void assign_eplb(const LayerProblem& problem, LayerSlots slots) {
  thread_local Scratch s;
  const auto loads = problem.loads();
  s.loads.assign(loads.size(), 0.0F);
  for (std::size_t e = 0; e < loads.size(); ++e) {
    s.loads[e] = static_cast<float>(loads[e]);
  }
  const Hierarchy hierarchy(problem);
  const std::size_t devices = static_cast<std::size_t>(problem.devices()) / hierarchy.nodes;
  place_by_node(hierarchy, s.packing, s.loads, s.experts, slots.expert,
                [&](std::span<const std::uint32_t> experts, std::span<std::int32_t> places) {
                  replicate(experts, places.size(), s);
                  const auto copy_at = s.packing.pack(s.load_of_copy, devices);
                  for (std::size_t place = 0; place < places.size(); ++place) {
                    places[place] =
                        static_cast<std::int32_t>(experts[s.expert_of_copy[copy_at[place]]]);
                  }
                });
}

}  // namespace moevar::placement
