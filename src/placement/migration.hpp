#pragma once

#include <cstdint>
#include <vector>

#include "placement/placement.hpp"

namespace moevar::placement {

/// One copy of an expert's weights from device to device, and what falls free with it.
struct Send {
  int layer = 0;
  std::int32_t expert = 0;
  int from_device = 0;
  int to_device = 0;
  bool leaves = false;         ///< the source gives up its copy once this has arrived
  std::int32_t replaced = -1;  ///< expert of which the target then gives up a copy; -1: none
};

/// Turns `from` into `to` with as few sends as there are devices that need an expert they do not
/// hold, in an order in which no device ever holds more than slots_per_device + 1 copies of a
/// layer, and only one device of the fleet that many: layer by layer, a device receives an expert
/// into the spare slot and gives up a copy that is at home elsewhere already; where it has none, it
/// sends one home, and the receiver goes on. So chains and cycles need no second spare slot.
/// Changing slots within a device, and a second copy on the same one, cost no send. Sources of an
/// expert in several places take turns. Throws InputError where the two differ in shape or an
/// expert of `to` is nowhere in `from`.
std::vector<Send> plan_migration(const Placement& from, const Placement& to);
/// Of layers [first_layer, end_layer) alone: no layer's sends depend on another's.
std::vector<Send> plan_migration(const Placement& from, const Placement& to, int first_layer,
                                 int end_layer);

/// Replays a plan. Throws CheckError that names the send unless every source holds the expert when
/// it sends it, every copy that is given up is there, no device ever holds more than
/// slots_per_device + 1 copies of a layer, and in the end every device holds what `to` wants of it
/// in no more than its slots.
void check_migration(const Placement& from, const Placement& to, const std::vector<Send>& plan);

}  // namespace moevar::placement
