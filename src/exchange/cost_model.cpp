#include "exchange/cost_model.hpp"

#include <algorithm>

namespace moevar::exchange {

// A GB/s is a byte a nanosecond.
AllToAllCost::AllToAllCost(const Links& links, int devices, double bytes_per_token) noexcept {
  if (devices <= 1) {
    return;
  }
  const double in_node = std::min(devices, links.devices_per_node) - 1;
  const double elsewhere = std::max(devices - links.devices_per_node, 0);
  latency_ns_ = 1e3 * (elsewhere > 0 ? links.inter_latency_us : links.intra_latency_us);
  ns_per_token_ = bytes_per_token / devices *
                  std::max(in_node / links.intra_gb_s, elsewhere / links.inter_gb_s);
}

double point_to_point_ns(const Links& links, std::int64_t bytes, bool across_nodes) noexcept {
  return static_cast<double>(bytes) / (across_nodes ? links.inter_gb_s : links.intra_gb_s);
}

}  // namespace moevar::exchange
