#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/units.hpp"
#include "placement/placement.hpp"

namespace moevar::run {

/// Tokens of slots under a placement: a slot takes all of its expert's tokens or, where the expert
/// has replicas, its share of them, split by largest remainder (ties to the lower slot) so that an
/// expert's slots sum to its tokens exactly.
class SlotTokens {
 public:
  /// For the slots of `devices`. Keeps a reference to `placement`.
  SlotTokens(const placement::Placement& placement, DeviceRange devices);

  /// Tokens of those slots in one layer, in slot order; `loads` is the layer's [experts]. `tokens`
  /// is [devices × slots_per_device].
  void count(std::size_t layer, std::span<const std::uint32_t> loads,
             std::span<std::uint32_t> tokens);

 private:
  struct Replicated {
    std::int32_t expert = 0;
    std::vector<std::size_t> slots;  ///< of the whole fleet, ascending
    std::vector<double> shares;
  };

  const placement::Placement& placement_;
  std::size_t first_slot_;
  std::vector<std::vector<Replicated>> replicated_;  ///< [layers], experts with slots of ours
  std::vector<std::uint32_t> split_;                 ///< of one expert
};

/// Splits `total` by `shares`, which sum to 1, by largest remainder; writes as many parts as there
/// are shares. They sum to `total`; a share of 0 gets nothing.
void split_by_share(std::uint32_t total, std::span<const double> shares,
                    std::span<std::uint32_t> parts);

}  // namespace moevar::run
