#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace moevar::cli {

/// What decides how many slots a device of a placement has.
struct SlotCount {
  int devices = 0;
  std::string redundant;  ///< a number, "fill", or empty
  std::optional<double> memory_gib;
  std::optional<double> expert_mib;
};

/// Slots per device for `layers` of `experts`. `present`: those of the present placement, which
/// stay where no redundancy is asked for. Throws InputError, with what would do, where the
/// redundancy is not a number from 0, slots don't divide over the devices or are more than a copy
/// of each expert on each device, or don't fit into the memory.
int slots_per_device(const SlotCount& wanted, int layers, int experts, std::optional<int> present);

/// For a policy that chooses the slots itself. Throws InputError where `slots_per_device` of
/// `layers` don't fit into the memory.
void require_fit(const SlotCount& wanted, std::string_view policy, int layers,
                 int slots_per_device);

}  // namespace moevar::cli
