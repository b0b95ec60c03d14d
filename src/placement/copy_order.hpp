#pragma once

#include "placement/replicas.hpp"

namespace moevar::placement {

/// The order in which copies are placed: falling load, then rising expert.
inline bool goes_before(const Copy& a, const Copy& b) noexcept {
  return a.load != b.load ? a.load > b.load : a.expert < b.expert;
}

}  // namespace moevar::placement
