#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moevar::placement {

/// What goes into one slot.
struct Copy {
  std::int32_t expert = 0;
  double load = 0.0;  ///< tokens, the expert's split evenly over its copies
};

/// As many copies as there are slots: one of every expert, then each further one of the expert with
/// the largest load per copy (EPLB's rule; ties to the lower expert), but no more of an expert than
/// there are devices while another can still be copied. By falling load; ties by rising expert.
std::vector<Copy> copies_for(std::span<const double> loads, int devices, int slots_per_device);

/// Exchanges slots until no device holds two copies of an expert, where that is possible; each
/// exchange takes the partner whose load is nearest. `load_of_slot` ([slots]) moves along.
void separate_replicas(int slots_per_device, std::span<std::int32_t> expert_of_slot,
                       std::span<double> load_of_slot);

/// Gives each copy of an expert the same share. Both are [slots].
void share_evenly(std::span<const std::int32_t> expert_of_slot, int experts,
                  std::span<double> share_of_slot);

}  // namespace moevar::placement
