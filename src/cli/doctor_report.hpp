#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace moevar::cli {

/// The document of `moevar doctor` as text: a screen for one node. What is null is "?", or "-"
/// where there is none.
std::string render_doctor(const nlohmann::json& document);

}  // namespace moevar::cli
