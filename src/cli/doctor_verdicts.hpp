#pragma once

#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "fleet/gpu_assignment.hpp"

namespace moevar::cli {

/// The document's `devices`: which kinds a study can use here, why not, and what to do.
nlohmann::json usable_devices(std::span<const fleet::RankView> views,
                              const fleet::GpuOptions& options,
                              const std::vector<nlohmann::json>& hosts);

}  // namespace moevar::cli
