#pragma once

#include <string>

#include "placement/speed_model.hpp"

namespace moevar::placement {

/// Reads the speeds of devices 0 ... devices − 1 from CSV, rows in any order, other columns
/// skipped: `device,tokens,latency_us`, a curve per device through its rows, or
/// `device,relative_time`, as `moevar fleet` writes it: a row per device, f(n) = n × relative_time
/// µs. `text` is the file's content, `path` names it in messages. Throws InputError with path and
/// row: a device missing, too many or twice, numbers that are none or not above 0, a time that
/// falls as tokens rise.
SpeedModels parse_speeds_csv(const std::string& text, const std::string& path, int devices);

/// As many equal devices: f(n) = n µs.
SpeedModels equal_speeds(int devices);

}  // namespace moevar::placement
