#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "conditions/heal.hpp"
#include "system/nvml.hpp"
#include "timeline/telemetry.hpp"

namespace moevar::conditions {

struct GuardOptions {
  std::string study;                                  ///< for those who find the capture
  std::string program = "/proc/self/exe";             ///< moevar's binary, for the guardian
  std::filesystem::path folder;                       ///< empty: state_folder()
  std::chrono::milliseconds patience = kPatience;     ///< for a read-back
  std::chrono::milliseconds call_limit = kCallLimit;  ///< for a call that sets
};

/// The one writer of a node's power limits, from the first write to the last read-back. As long as
/// it lives, somebody will put back what was there before: this object, a signal's thread by
/// restore_all_now(), the guardian, or whoever heals later. Not collective: a node's leader alone
/// has one. All of it may be called from any thread.
class CapGuard {
 public:
  /// Locks the GPUs, heals what a dead run left, captures their limits, makes sure that they can be
  /// written by writing what is there, and starts the guardian. Throws EnvironmentError: no
  /// permission, another run holds a GPU, no guardian; Error of status `restore_failed` where a
  /// dead run's limit cannot be put back.
  CapGuard(std::vector<std::string> uuids, GuardOptions options);
  /// Restores; says what failed on standard error, and a_restore_failed() is true from then on.
  ~CapGuard();
  CapGuard(const CapGuard&) = delete;
  CapGuard& operator=(const CapGuard&) = delete;

  /// Sets a limit for each GPU, in the constructor's order, and reads back what is enforced: that
  /// may differ, and is said by the result alone. Throws InputError for a limit out of its range,
  /// before any is written; EnvironmentError.
  std::vector<timeline::CapState> set(const std::vector<Milliwatts>& limits);
  /// The limits that the constructor found.
  [[nodiscard]] std::vector<Milliwatts> previous() const;
  /// Reads the limits again: a line for each GPU whose enforced limit is not what it was after
  /// set(), or since the last watch().
  std::vector<std::string> watch();
  /// Puts back what was there and lets the guardian go; after that the object does nothing more.
  /// Throws Error of status `restore_failed`: the guardian and the locks then stay until this
  /// process ends, and captures with them.
  void restore();

 private:
  friend bool restore_all_now() noexcept;
  class State;
  std::unique_ptr<State> state_;
};

/// Restores the limits of every CapGuard of this process, for a thread that is about to end it: no
/// limit is written after. Whether all are back. Never throws.
bool restore_all_now() noexcept;

/// Whether this process holds limits of others' GPUs at the moment.
bool holds_limits() noexcept;

/// Who of this job holds limits, for a rank that is told to end and holds none itself.
struct JobsHolders {
  std::int64_t here = 0;  ///< the process on this node; 0: none
  bool anywhere = false;  ///< on this node or another
};
/// Told by whoever makes the guards; kept until told otherwise.
void note_holders(const JobsHolders& holders) noexcept;
JobsHolders holders_of_job() noexcept;

/// Whether a limit could not be put back by this process, ever.
bool a_restore_failed() noexcept;

/// A GPU's limits, all of NaN where it does not tell. `requested_w` is what the driver was last
/// asked for.
timeline::CapState cap_state(const std::string& uuid) noexcept;

}  // namespace moevar::conditions
