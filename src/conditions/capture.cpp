#include "conditions/capture.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "system/affinity.hpp"
#include "system/files.hpp"

namespace moevar::conditions {

namespace {

namespace fs = std::filesystem;

constexpr const char* kSystemWide = "/var/lib/moevar";

[[noreturn]] void fail(std::string_view what, const fs::path& path, int code) {
  throw EnvironmentError(
      fmt::format("cannot {} {}: {}", what, path.string(), std::generic_category().message(code)));
}

std::optional<std::string> variable(const char* name) {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing in this program changes its environment
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

fs::path home_folder() {
  if (const auto home = variable("HOME")) {
    return *home;
  }
  // NOLINTNEXTLINE(concurrency-mt-unsafe): the guard is made before threads ask for users
  const auto* user = ::getpwuid(::geteuid());
  if (user == nullptr) {
    throw EnvironmentError("no home folder for power limits' state; set MOEVAR_STATE_DIR");
  }
  return user->pw_dir;
}

/// Whoever may write here decides what is put back with root's rights.
void require_own(const fs::path& folder) {
  struct stat info {};
  if (::lstat(folder.c_str(), &info) != 0) {
    fail("use", folder, errno);
  }
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid() ||
      (info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    throw EnvironmentError(fmt::format(
        "{}: must be a folder of this user that no other can write to (chmod 700), since power "
        "limits are put back from it",
        printable(folder.string(), 200)));
  }
}

/// A UUID becomes part of a file's name.
const std::string& checked(const std::string& uuid) {
  const auto fits = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-'; };
  if (uuid.empty() || !std::ranges::all_of(uuid, fits)) {
    throw EnvironmentError(fmt::format("'{}' is no UUID of a GPU", printable(uuid, 100)));
  }
  return uuid;
}

fs::path capture_path(const fs::path& folder, const std::string& uuid) {
  return folder / (checked(uuid) + ".json");
}
fs::path lock_path(const fs::path& folder, const std::string& uuid) {
  return folder / (checked(uuid) + ".lock");
}

/// What the last holder wrote; 0 where nothing is to be read.
std::int64_t last_holder(const fs::path& folder, const std::string& uuid) {
  std::int64_t pid = 0;
  std::ifstream(lock_path(folder, uuid)) >> pid;
  return pid;
}

bool is_dead(std::int64_t pid) {
  return pid > 0 && ::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH;
}

/// How long a holder is given to let go.
std::chrono::milliseconds patience_with(std::int64_t holder) {
  using std::chrono_literals::operator""ms;
  if (holder == 0 || is_dead(holder)) {
    return 10'000ms;  // its guardian heals
  }
  // one's own: the guardian of a guard that this process had is about to end
  return holder == ::getpid() ? 3'000ms : 500ms;
}

[[noreturn]] void refuse_lock(const std::string& uuid, std::int64_t holder) {
  if (is_dead(holder)) {
    throw Error(ExitStatus::restore_failed,
                fmt::format("the power limit of {} is held by process {}, which is dead, and its "
                            "guardian does not end: it could not put the limit back so far",
                            uuid, holder));
  }
  throw EnvironmentError(
      fmt::format("the power limit of {} is held by process {}; moevar changes it for one run at a "
                  "time",
                  uuid, holder == 0 ? "unknown" : std::to_string(holder)));
}

}  // namespace

fs::path state_folder_path() {
  if (const auto named = variable("MOEVAR_STATE_DIR")) {
    return fs::absolute(*named);
  }
  std::error_code error;
  const bool made = fs::exists(kSystemWide, error);
  const fs::path asked = made ? kSystemWide : fs::path(kSystemWide).parent_path();
  if (::access(asked.c_str(), W_OK | X_OK) == 0) {
    return kSystemWide;
  }
  return fs::absolute(home_folder()) / ".local/state/moevar" / affinity::host_name();
}

std::optional<fs::path> hidden_state_folder() {
  const fs::path folder = variable("MOEVAR_STATE_DIR") ? state_folder_path() : kSystemWide;
  std::error_code error;
  const bool there = fs::exists(folder, error) || error == std::errc::permission_denied;
  return there && ::access(folder.c_str(), R_OK | X_OK) != 0 ? std::optional(folder) : std::nullopt;
}

fs::path state_folder() {
  fs::path folder = state_folder_path();
  std::error_code error;
  if (!fs::exists(folder, error)) {
    for (const auto& made : files::make_folders(folder)) {
      fs::permissions(made, fs::perms::owner_all, error);
      files::sync(made.parent_path());
    }
  }
  require_own(folder);
  return folder;
}

std::string boot_id() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  if (id.empty()) {
    throw EnvironmentError("/proc/sys/kernel/random/boot_id cannot be read");
  }
  return id;
}

bool Capture::has(Milliwatts limit) const {
  return std::ranges::find(ours_mw, limit) != ours_mw.end();
}

bool Capture::add(Milliwatts limit) {
  if (has(limit)) {
    return false;
  }
  ours_mw.push_back(limit);
  return true;
}

void save_capture(const fs::path& folder, const Capture& capture) {
  const nlohmann::ordered_json json{{"schema", 1},
                                    {"uuid", capture.uuid},
                                    {"boot_id", capture.boot_id},
                                    {"previous_mw", capture.previous_mw},
                                    {"previous_enforced_mw", capture.previous_enforced_mw},
                                    {"ours_mw", capture.ours_mw},
                                    {"pid", capture.pid},
                                    {"time", capture.time},
                                    {"study", capture.study}};
  // a study's name may hold what is no UTF-8
  files::write_text(
      capture_path(folder, capture.uuid),
      json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n",
      S_IRUSR | S_IWUSR);
}

std::optional<Capture> load_capture(const fs::path& folder, const std::string& uuid) {
  const auto path = capture_path(folder, uuid);
  std::error_code error;
  if (!fs::exists(path, error) && !error) {
    return std::nullopt;
  }
  try {
    const auto json = nlohmann::json::parse(files::read_text(path));
    Capture capture;
    json.at("uuid").get_to(capture.uuid);
    json.at("boot_id").get_to(capture.boot_id);
    json.at("previous_mw").get_to(capture.previous_mw);
    json.at("previous_enforced_mw").get_to(capture.previous_enforced_mw);
    json.at("ours_mw").get_to(capture.ours_mw);
    json.at("pid").get_to(capture.pid);
    json.at("time").get_to(capture.time);
    json.at("study").get_to(capture.study);
    if (json.at("schema") != 1 || capture.uuid != uuid) {
      throw EnvironmentError("another version's, or another GPU's");
    }
    return capture;
  } catch (const std::exception& problem) {
    throw EnvironmentError(fmt::format(
        "{}: cannot be read as the power limit that a run found: {}; the limit of {} is to be "
        "looked at by hand",
        path.string(), printable(problem.what(), 200), uuid));
  }
}

std::vector<std::string> captured_uuids(const fs::path& folder) {
  std::vector<std::string> uuids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".json") {
      uuids.push_back(entry.path().stem().string());
    }
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    fail("read", folder, error.value());
  }
  std::ranges::sort(uuids);
  return uuids;
}

void delete_capture(const fs::path& folder, const std::string& uuid) {
  const auto path = capture_path(folder, uuid);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    fail("delete", path, errno);
  }
  try {
    files::sync(folder);
  } catch (const EnvironmentError&) {
    // a crash may bring the file back; whoever finds it then finds its limit as well
    return;
  }
}

std::optional<GpuLock> GpuLock::try_take(const fs::path& folder, const std::string& uuid) {
  const auto path = lock_path(folder, uuid);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    fail("open", path, errno);
  }
  GpuLock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      fail("lock", path, errno);
    }
    return std::nullopt;
  }
  // who it is, for those who are refused; on a full disk they are told less
  const auto pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) < 0) {
    return lock;
  }
  return lock;
}

GpuLock GpuLock::take(const fs::path& folder, const std::string& uuid) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  for (;;) {
    if (auto lock = try_take(folder, uuid)) {
      return std::move(*lock);
    }
    const auto pid = last_holder(folder, uuid);
    if (Clock::now() - begin > patience_with(pid)) {
      refuse_lock(uuid, pid);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

GpuLock::~GpuLock() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}
GpuLock::GpuLock(GpuLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
GpuLock& GpuLock::operator=(GpuLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

std::optional<std::int64_t> holder_of(const fs::path& folder, const std::string& uuid) {
  const int fd = ::open(lock_path(folder, uuid).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    return std::nullopt;
  }
  const bool held = ::flock(fd, LOCK_SH | LOCK_NB) != 0;
  ::close(fd);
  return held ? std::optional(last_holder(folder, uuid)) : std::nullopt;
}

}  // namespace moevar::conditions
