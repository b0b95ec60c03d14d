#pragma once

#include "system/signals.hpp"

namespace moevar::cli {

/// What signals::Watch is to call while a study runs: puts power limits back, says one line, and
/// ends all ranks with exit status 4, or 5 where a limit could not be put back. What was recorded
/// is on disk already. Never returns.
void end_on_signal(int signal);

}  // namespace moevar::cli
