#pragma once

#include <chrono>
#include <functional>
#include <string>

namespace moevar {

/// Who waits, for errors, and how long at most.
struct Patience {
  std::string who;  ///< "rank 1 on node7, GPU-..."
  std::chrono::duration<double> limit{60.0};
};

/// Who this process is: its rank, its host and `gpu`, a UUID, where that is not empty.
std::string describe_process(int rank, const std::string& gpu);

/// Calls `done` until it returns true. `what` lives as long as the program; a watchdog sees that
/// this process is in it. Throws EnvironmentError that names who, what and `advice` once the limit
/// is over; whatever `done` throws passes through.
void wait_until(const char* what, const Patience& patience, const std::function<bool()>& done,
                const char* advice);

}  // namespace moevar
