#include "system/files.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::files {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(std::string_view what, const fs::path& path, int code) {
  throw EnvironmentError(
      fmt::format("cannot {} {}: {}", what, path.string(), std::generic_category().message(code)));
}

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags, mode_t mode = 0666)
      : fd_(::open(path.c_str(), flags, mode)) {
    if (fd_ < 0) {
      fail("open", path, errno);
    }
  }
  /// Takes an open one over.
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&&) = delete;
  Descriptor& operator=(Descriptor&&) = delete;

  [[nodiscard]] int raw() const noexcept { return fd_; }

 private:
  int fd_;
};

void write_all(const Descriptor& file, std::string_view text, const fs::path& path) {
  while (!text.empty()) {
    const auto written = ::write(file.raw(), text.data(), text.size());
    if (written < 0 && errno != EINTR) {
      fail("write", path, errno);
    }
    text.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
  }
}

[[noreturn]] void refuse_existing(const fs::path& path) {
  throw InputError(fmt::format("{}: exists, and no result is ever overwritten; give a new name",
                               printable(path.string(), 200)));
}

[[noreturn]] void refuse_folder(const fs::path& path, int code) {
  throw EnvironmentError(
      fmt::format("{}: cannot be created: {}; give a new file in a folder that can be written",
                  printable(path.string(), 200), std::generic_category().message(code)));
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

void sync(const fs::path& path) {
  const Descriptor file(path, O_RDONLY | O_CLOEXEC);
  // a file system without fsync for folders answers EINVAL: there is nothing more to be done there
  if (::fsync(file.raw()) != 0 && errno != EINVAL) {
    fail("write", path, errno);
  }
}

void publish(const fs::path& temporary, const fs::path& target) {
  sync(temporary);
  std::error_code error;
  fs::rename(temporary, target, error);
  if (error) {
    fail("write", target, error.value());
  }
  sync(folder_of(target));
}

void write_text(const fs::path& target, std::string_view text, std::optional<mode_t> mode) {
  auto temporary = target;
  temporary += ".tmp";
  try {
    {
      constexpr mode_t kNew = 0666;
      const Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                            mode.value_or(kNew));
      if (mode && ::fchmod(file.raw(), *mode) != 0) {
        fail("write", target, errno);
      }
      write_all(file, text, target);
    }
    publish(temporary, target);
  } catch (...) {
    discard(temporary);
    throw;
  }
}

void require_new(const fs::path& target) {
  std::error_code error;
  if (fs::symlink_status(target, error).type() != fs::file_type::not_found) {
    if (error) {
      refuse_folder(target, error.value());
    }
    refuse_existing(target);
  }
  if (!fs::is_directory(folder_of(target), error)) {
    refuse_folder(target, error ? error.value() : ENOENT);
  }
}

void write_new_text(const fs::path& target, std::string_view text) {
  const int fd = ::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0 && errno == EEXIST) {
    refuse_existing(target);
  }
  if (fd < 0) {
    refuse_folder(target, errno);
  }
  try {
    const Descriptor file(fd);
    write_all(file, text, target);
    if (::fsync(file.raw()) != 0 && errno != EINVAL) {
      fail("write", target, errno);
    }
  } catch (...) {
    discard(target);
    throw;
  }
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  // a folder opens, but does not read
  if (!file.is_open() || text.view().empty()) {
    throw InputError(fmt::format("{} cannot be read, or is empty; it must be a file that exists",
                                 printable(path.string(), 200)));
  }
  return std::move(text).str();
}

std::vector<fs::path> make_folders(const fs::path& path) {
  std::vector<fs::path> missing;
  std::error_code error;
  for (auto folder = fs::absolute(path).lexically_normal(); !fs::exists(folder, error) && !error;
       folder = folder.parent_path()) {
    if (folder.has_filename()) {
      missing.insert(missing.begin(), folder);
    }
  }
  std::vector<fs::path> made;
  for (const auto& folder : missing) {
    if (!fs::create_directory(folder, error) && error) {
      std::error_code ignored;
      for (; !made.empty(); made.pop_back()) {
        fs::remove(made.back(), ignored);
      }
      fail("create folder", path, error.value());
    }
    made.push_back(folder);
  }
  if (!fs::is_directory(path, error)) {
    fail("create folder", path, error ? error.value() : ENOTDIR);
  }
  return made;
}

void require_room(const fs::path& path, std::uintmax_t bytes) {
  const Descriptor file(path, O_RDWR | O_CREAT | O_CLOEXEC);
  if (bytes == 0 || ::fallocate(file.raw(), 0, 0, static_cast<off_t>(bytes)) == 0) {
    return;
  }
  if (errno != EOPNOTSUPP && errno != ENOSYS) {
    fail("write", path, errno);
  }
  std::error_code error;
  if (fs::space(folder_of(path), error).available < bytes && !error) {
    fail("write", path, ENOSPC);
  }
}

FolderLock::FolderLock(const fs::path& folder)
    : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (fd_ < 0) {
    fail("open", folder, errno);
  }
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(fd_);
    throw EnvironmentError(
        fmt::format("{}: another moevar writes there; wait for its end, or give another folder",
                    printable(folder.string(), 200)));
  }
}

FolderLock::~FolderLock() { ::close(fd_); }

void discard(const fs::path& path) noexcept {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) {
    fs::resize_file(path, 0, ignored);
    fs::remove(path, ignored);
  }
}

}  // namespace moevar::files
