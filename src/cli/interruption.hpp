#pragma once

#include <string>

namespace moevar::cli {

/// What signals::Watch is to call while a study runs and it is asked to end: rank 0 says that the
/// phase is finished first.
void note_request(int signal);

/// What it is to call when it is told to: puts power limits back, says one line, and
/// ends all ranks with exit status 4, or 5 where a limit could not be put back. What was recorded
/// is on disk already. Never returns.
void end_on_signal(int signal);

/// What run::Watchdog is to call: puts power limits back, says the line, and ends all ranks with
/// exit status 3, or 5 where a limit could not be put back. Never returns.
void end_hung(const std::string& line);

}  // namespace moevar::cli
