#pragma once

#include <map>
#include <string>

/// What a reader of results wants to know of the machine and the libraries. Nothing here throws
/// for what it cannot find out: that is "unknown". Nothing here is collective.
namespace moevar::host {

/// Of this host: "kernel", "processor", "topology" (packages, memory nodes, cores, hardware
/// threads), "memory", "governor" (of the processor's clocks), "driver" (of NVIDIA's GPUs, or
/// "none") and "GPU 0" ... (name, UUID, power limit, highest clock).
std::map<std::string, std::string> facts();

/// Versions of "MPI", "HDF5" and "NCCL" (the one that would be loaded, or "none").
std::map<std::string, std::string> libraries();

/// The variables of an allow-list that are set: they steer threads, devices and transports. No
/// other variable is ever looked at.
std::map<std::string, std::string> environment();

/// The time, UTC: "2026-11-22T11:12:47Z".
std::string now_utc();

}  // namespace moevar::host
