#pragma once

#include <string>

#include "base/units.hpp"

namespace moevar {

/// Who a device is, for good: what lets two runs say that they measured the same one.
struct DeviceIdentity {
  DeviceId device = 0;  ///< place in the fleet
  std::string kind;     ///< "model" | "cpu" | "cuda"
  std::string uuid;     ///< GPU UUID; "model-<preset>-<seed>-<index>"; "cpu-<host>-<core>"
  std::string name;     ///< product name: "NVIDIA H100 80GB HBM3", "h100-sxm5 (modelled)"
  std::string host;     ///< host name; the modelled node's for kind "model"
  int node = 0;         ///< node index in the fleet
  int slot = 0;         ///< position within the node
  int rank = 0;         ///< the rank that drives it (not part of its identity)
};

}  // namespace moevar
