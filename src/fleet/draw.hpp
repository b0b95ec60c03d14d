#pragma once

#include <cstdint>
#include <vector>

#include "base/units.hpp"
#include "study/study.hpp"

namespace moevar::fleet {

/// The first `count` devices of a random order of a pool's 0 ... pool − 1, so that smaller fleets
/// of a draw are nested in its larger ones. Keyed by the seed and the draw's number.
///
/// Draw::nodes: whole nodes in random order; within a node its pairs of neighbours, and each pair's
/// two, in random order, so that fleets smaller than a node are random too and neighbours stay
/// together. Draw::devices: single devices, wherever they sit.
///
/// Throws InputError for a count outside 1 ... pool, and where nodes are drawn from a pool that
/// whole nodes don't make up.
std::vector<DeviceId> draw_devices(std::uint64_t seed, int number, int pool, int count,
                                   study::Draw draw);

}  // namespace moevar::fleet
