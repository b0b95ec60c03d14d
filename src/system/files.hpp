#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

/// Files that are there whole or not at all, also after a crash. A failed call throws
/// EnvironmentError. Nothing here is collective.
namespace moevar::files {

/// fsync of a file or a folder.
void sync(const std::filesystem::path& path);

/// Gives a finished file its name, durably: fsync, rename, fsync of the folder. Both names lie in
/// one folder; what had the name `target` is replaced.
void publish(const std::filesystem::path& temporary, const std::filesystem::path& target);

/// Writes `text` under a temporary name, then publishes it. On failure nothing is left. `mode`: its
/// permissions, whatever the umask; nullopt: those that new files get.
void write_text(const std::filesystem::path& target, std::string_view text,
                std::optional<mode_t> mode = std::nullopt);

/// Throws where a file of this name could not be made by write_new_text: InputError where it
/// exists, EnvironmentError where its folder does not.
void require_new(const std::filesystem::path& target);

/// Writes `text` to a file that must not exist yet: results are never overwritten. Throws as
/// require_new does; when writing fails, nothing is left.
void write_new_text(const std::filesystem::path& target, std::string_view text);

/// A whole file's bytes. Throws InputError that names it where it cannot be read, or is empty.
std::string read_text(const std::filesystem::path& path);

/// Creates a folder and the missing ones above it. Returns those it made, outermost first; on
/// failure they are gone again.
std::vector<std::filesystem::path> make_folders(const std::filesystem::path& path);

/// Makes sure that a file `path`, which it creates, can grow to `bytes` on its disk as it is now.
void require_room(const std::filesystem::path& path, std::uintmax_t bytes);

/// The right to write into a folder: one holder, until it ends, by death or otherwise; nothing is
/// left in the folder. Where the file system knows no locks nobody is kept out.
class FolderLock {
 public:
  /// Throws EnvironmentError where another process has it, or the folder cannot be opened.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

/// Removes a half-written file and frees its space even while something still holds it open.
/// Never throws.
void discard(const std::filesystem::path& path) noexcept;

}  // namespace moevar::files
