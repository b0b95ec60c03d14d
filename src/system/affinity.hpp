#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace moevar::affinity {

/// Physical cores (their first hardware thread's OS index) that this process may use, ascending.
std::vector<int> usable_cores();

/// Binds the calling process to one core of usable_cores(): the (local_rank % cores)-th.
/// Returns its OS index. Throws LibraryError when the system refuses.
int bind_to_core(int local_rank);

/// Host name without domain.
std::string host_name();

/// The processor's product name as the kernel gives it; "unknown CPU" where it gives none.
std::string cpu_model();

/// "2 packages, 4 memory nodes, 64 cores, 128 hardware threads", of the whole machine; "unknown"
/// where it cannot be found out.
std::string topology();

/// Bytes of memory that can be had now (MemAvailable, and the cgroup's limit where there is one).
std::size_t available_memory_bytes();

}  // namespace moevar::affinity
