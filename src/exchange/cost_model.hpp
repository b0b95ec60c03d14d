#pragma once

#include <cstdint>

#include "base/units.hpp"

namespace moevar::exchange {

/// What connects the devices of a modelled fleet, per device and direction. Inside a node:
/// scale-up links (NVLink, xGMI); between nodes: the network.
struct Links {
  int devices_per_node = 8;
  double intra_gb_s = 0.0;
  double inter_gb_s = 0.0;
  double intra_latency_us = 0.0;  ///< of an exchange inside one node
  double inter_latency_us = 0.0;  ///< of one over several nodes
};

/// Bytes of a token on the way to its experts (FP8) and back (BF16). Source: DeepSeek-V3's practice
/// and DeepEP's defaults.
constexpr double dispatch_bytes_per_token(int hidden) noexcept { return 1.0 * hidden; }
constexpr double combine_bytes_per_token(int hidden) noexcept { return 2.0 * hidden; }

/// What an all-to-all of tokens costs a modelled device: latency plus the slower of its two kinds
/// of link. Tokens spread evenly over the G devices: 1/G of them stay on the device, (min(G, 8) -
/// 1)/G cross the links of its node, the rest the network. One device exchanges nothing in no time.
/// Pure; any rank may call it.
class AllToAllCost {
 public:
  /// `devices` >= 1 in the fleet, `bytes_per_token` sent for each copy of a token.
  AllToAllCost(const Links& links, int devices, double bytes_per_token) noexcept;

  /// Time of a device that sends or receives `tokens`, whichever is more. Rises with `tokens`.
  [[nodiscard]] Nanoseconds time_ns(std::int64_t tokens) const noexcept {
    return to_nanoseconds(latency_ns_ + ns_per_token_ * static_cast<double>(tokens));
  }

 private:
  double latency_ns_ = 0.0;
  double ns_per_token_ = 0.0;
};

/// Time to move `bytes` from one device to another.
double point_to_point_ns(const Links& links, std::int64_t bytes, bool across_nodes) noexcept;

}  // namespace moevar::exchange
