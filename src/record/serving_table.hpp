#pragma once

#include <string>
#include <vector>

#include "record/summary.hpp"

/// Rows of the terminal table for cells that served requests.
namespace moevar::record {

/// Two lines, each as wide as a row.
std::string serving_headings();
/// One policy's cells, a repeat each, all of which served requests: means over repeats.
std::string serving_row(const std::string& policy, const std::vector<const CellSummary*>& repeats);
/// What the columns mean.
std::string serving_legend();

}  // namespace moevar::record
