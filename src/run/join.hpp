#pragma once

#include <span>
#include <vector>

#include "run/backend.hpp"

namespace moevar::run {

/// One phase out of blocks of steps that ran one after the other: at least one, all of the same
/// devices and layers. `ends_ns`: of each block, when its last device left its last layer, counted
/// from its start. The clock goes on where the block before ended: time between blocks, in which
/// ranks agree whether to go on, is left out.
PhaseResult join(std::vector<PhaseResult> blocks, std::span<const Nanoseconds> ends_ns);

/// When the last of this rank's devices left the block's last layer; 0 without devices or steps.
Nanoseconds end_of(const PhaseResult& block);

}  // namespace moevar::run
