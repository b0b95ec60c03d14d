#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "system/nvml.hpp"

/// What must outlive a run that changes power limits: what they were before it, and who holds
/// them. Kept in the state folder, a file per GPU. Nothing here is collective.
namespace moevar::conditions {

using nvml::Milliwatts;

/// The state folder of this machine and user: $MOEVAR_STATE_DIR, else /var/lib/moevar where that
/// can be written, else ~/.local/state/moevar/HOST. Absolute; it may not be there.
std::filesystem::path state_folder_path();
/// The folder where this machine's runs may keep limits that this user cannot see: it is there, and
/// closed to him. nullopt: nothing is hidden.
std::optional<std::filesystem::path> hidden_state_folder();
/// The same, made if missing. Throws EnvironmentError where it cannot be had, belongs to another
/// user, or others may write to it.
std::filesystem::path state_folder();

/// The kernel's id of this boot.
std::string boot_id();

/// A GPU's limit as a run found it, and all that the run ever did to it.
struct Capture {
  std::string uuid;
  std::string boot_id;
  Milliwatts previous_mw = 0;           ///< requested limit before the run: what is put back
  Milliwatts previous_enforced_mw = 0;  ///< enforced limit before the run
  /// Every limit that the run was about to set, and every one that it saw enforced since.
  std::vector<Milliwatts> ours_mw;
  std::int64_t pid = 0;
  std::string time;  ///< when it was captured, UTC
  std::string study;

  /// Adds to `ours_mw` what is not there yet; whether it was new.
  bool add(Milliwatts limit);
  [[nodiscard]] bool has(Milliwatts limit) const;
};

/// Writes a capture, for this user alone, so that it survives a crash from here on: fsync of file
/// and folder. Throws EnvironmentError.
void save_capture(const std::filesystem::path& folder, const Capture& capture);
/// nullopt: the GPU has none. Throws EnvironmentError where one cannot be read.
std::optional<Capture> load_capture(const std::filesystem::path& folder, const std::string& uuid);
/// UUIDs of the GPUs that have one, sorted; none where there is no such folder.
std::vector<std::string> captured_uuids(const std::filesystem::path& folder);
void delete_capture(const std::filesystem::path& folder, const std::string& uuid);

/// The right to write a GPU's limit: one holder on the machine, a process together with its
/// guardian. It ends when the last process that inherited it has closed it, by death or otherwise;
/// nobody can take it away before, and nothing stale is left. The file that bears it stays.
class GpuLock {
 public:
  /// nullopt: somebody holds it. Throws EnvironmentError.
  static std::optional<GpuLock> try_take(const std::filesystem::path& folder,
                                         const std::string& uuid);
  /// Waits 10 s for one whose holder died, since a guardian heals then; a living holder is given
  /// half a second, this process itself 3 s. Throws EnvironmentError that names the holder; Error
  /// of status `restore_failed` where a dead one's guardian does not end.
  static GpuLock take(const std::filesystem::path& folder, const std::string& uuid);

  ~GpuLock();
  GpuLock(GpuLock&& other) noexcept;
  GpuLock& operator=(GpuLock&& other) noexcept;
  GpuLock(const GpuLock&) = delete;
  GpuLock& operator=(const GpuLock&) = delete;

  /// The open file: what a guardian inherits.
  [[nodiscard]] int descriptor() const noexcept { return fd_; }

 private:
  explicit GpuLock(int fd) : fd_(fd) {}
  int fd_;
};

/// The process that holds a GPU's limit, also where it died and its guardian still heals; nullopt:
/// nobody.
std::optional<std::int64_t> holder_of(const std::filesystem::path& folder, const std::string& uuid);

}  // namespace moevar::conditions
