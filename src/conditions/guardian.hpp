#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "conditions/capture.hpp"

namespace moevar::conditions {

/// A process that outlives this one and puts power limits back if this one dies, by SIGKILL too:
/// `moevar caps guard`, in a session of its own, which no signal to the launcher's process group
/// reaches. It inherits the GPUs' locks, so that nobody else can take them before it is done. Its
/// log: guardian.log in the state folder.
class Guardian {
 public:
  /// Starts it and waits until it is ready. `program`: moevar's binary. `locks`: those of `uuids`.
  /// Throws EnvironmentError.
  Guardian(const std::string& program, const std::filesystem::path& folder,
           const std::vector<std::string>& uuids, std::span<const GpuLock> locks);
  /// Without dismiss(), the guardian takes this process for dead and heals.
  ~Guardian();
  Guardian(const Guardian&) = delete;
  Guardian& operator=(const Guardian&) = delete;

  /// All limits are back: it may go. Waits for its end, 2 s at most.
  void dismiss() const noexcept;

 private:
  int socket_ = -1;
};

/// What the guardian does, in its own process: waits for its owner's word or death on descriptor 3
/// and heals in the latter case. Returns whether all is well.
bool stand_guard(const std::filesystem::path& folder, const std::vector<std::string>& uuids);

}  // namespace moevar::conditions
