#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "placement/placement.hpp"

namespace moevar::run {

/// Which slot every token goes to for each of its experts. An expert in one slot sends all its
/// tokens there; replicas get the counts that SlotTokens gives them, dealt out evenly along the
/// tokens, so that no source sends to one replica alone.
///
/// `experts` is [tokens][top_k] of one layer over all devices, since who is whose n-th token
/// depends on all of them; `slots` has the same shape. Pure, the same on every rank.
void choose_slots(const placement::Placement& placement, int layer,
                  std::span<const std::int32_t> experts, std::span<std::int32_t> slots);

}  // namespace moevar::run
