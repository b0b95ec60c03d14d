#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "system/pci.hpp"

namespace moevar::affinity {

/// Physical cores (their first hardware thread's OS index) that this process may use, ascending.
std::vector<int> usable_cores();

/// Binds the calling process to one core of usable_cores(): the (local_rank % cores)-th.
/// Returns its OS index. Throws LibraryError when the system refuses.
int bind_to_core(int local_rank);

/// Binds the calling process to these cores, as usable_cores() names them, and new memory to the
/// memory nodes that are next to them as long as they have room. Returns whether the latter could
/// be had; a container may forbid it. Throws LibraryError when the system refuses the cores.
bool bind_to_cores(std::span<const int> cores);

/// What of a machine is next to a device.
struct Locality {
  std::vector<int> threads;       ///< hardware threads, OS indices, ascending
  std::vector<int> memory_nodes;  ///< OS indices, ascending
  bool operator==(const Locality&) const = default;
};

/// A machine's topology with its PCI devices. Whoever calls owns it; it is never changed.
class Machine {
 public:
  /// This machine. Throws LibraryError.
  Machine();
  /// The machine that hwloc's XML describes. Throws LibraryError.
  explicit Machine(const std::string& xml);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  /// As the free function.
  [[nodiscard]] std::vector<int> usable_cores() const;
  /// nullopt: there is no such device, or the machine has several memory nodes and does not tell
  /// (as many virtual ones) which the device is next to.
  [[nodiscard]] std::optional<Locality> near(const pci::Address& device) const;

 private:
  struct Hidden;
  std::unique_ptr<Hidden> hidden_;
};

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
