#include "system/files.hpp"

#include <csignal>
#include <fstream>
#include <sstream>
#include <sys/resource.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "temporary_folder.hpp"

namespace moevar::files {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(Files, WriteTextReplacesWhole) {
  const TemporaryFolder folder;
  write_text(folder.path() / "a", "first");
  write_text(folder.path() / "a", "second");
  EXPECT_EQ(text_of(folder.path() / "a"), "second");
  EXPECT_FALSE(fs::exists(folder.path() / "a.tmp"));
}

TEST(Files, ANewTextNeverReplacesAnything) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "a";
  EXPECT_NO_THROW(require_new(file));
  write_new_text(file, "first");
  EXPECT_THROW(require_new(file), InputError);
  EXPECT_THROW(write_new_text(file, "second"), InputError);
  EXPECT_EQ(text_of(file), "first");
  const auto link = folder.path() / "link";  // one that leads nowhere is a name in use too
  fs::create_symlink(folder.path() / "nothing", link);
  EXPECT_THROW(require_new(link), InputError);
  EXPECT_THROW(write_new_text(link, "x"), InputError);
  EXPECT_FALSE(fs::exists(folder.path() / "nothing"));
}

TEST(Files, ANewTextNeedsItsFolder) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "none" / "a";
  EXPECT_THROW(require_new(file), EnvironmentError);
  EXPECT_THROW(write_new_text(file, "x"), EnvironmentError);
  EXPECT_THROW(require_new(folder.path()), InputError);
  EXPECT_FALSE(fs::exists(folder.path() / "none"));
  write_new_text(folder.path() / "file", "x");
  EXPECT_THROW(require_new(folder.path() / "file" / "a"), EnvironmentError);
}

TEST(Files, AFullDiskLeavesNoNewText) {
  const TemporaryFolder folder;
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  auto limit = before;
  limit.rlim_cur = 1000;
  setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_THROW(write_new_text(folder.path() / "a", std::string(5000, 'x')), EnvironmentError);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_FALSE(fs::exists(folder.path() / "a"));
}

TEST(Files, AFullDiskKeepsTheOldText) {
  const TemporaryFolder folder;
  write_text(folder.path() / "a", "old");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  auto limit = before;
  limit.rlim_cur = 1000;
  setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_THROW(write_text(folder.path() / "a", std::string(5000, 'x')), EnvironmentError);
  EXPECT_THROW(require_room(folder.path() / "b", 2000), EnvironmentError);
  EXPECT_NO_THROW(require_room(folder.path() / "c", 500));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(text_of(folder.path() / "a"), "old");
  EXPECT_FALSE(fs::exists(folder.path() / "a.tmp"));
}

TEST(Files, MakeFoldersReturnsThoseItMade) {
  const TemporaryFolder folder;
  const auto made = make_folders(folder.path() / "a/b/");
  EXPECT_EQ(made, (std::vector<fs::path>{folder.path() / "a", folder.path() / "a/b"}));
  EXPECT_TRUE(make_folders(folder.path() / "a/b").empty());
}

TEST(Files, MakeFoldersLeavesNothingWhereItFails) {
  const TemporaryFolder folder;
  write_text(folder.path() / "file", "text");
  EXPECT_THROW(make_folders(folder.path() / "file/b"), EnvironmentError);
  EXPECT_THROW(make_folders(folder.path() / "file"), EnvironmentError);
  EXPECT_THROW(make_folders("/proc/absent/b"), EnvironmentError);
  const std::string too_long(300, 'x');
  EXPECT_THROW(make_folders(folder.path() / "new" / too_long), EnvironmentError);
  EXPECT_FALSE(fs::exists(folder.path() / "new"));
}

TEST(Files, DiscardForgivesWhatIsNotThere) {
  const TemporaryFolder folder;
  discard(folder.path() / "absent");
  write_text(folder.path() / "a", "text");
  discard(folder.path() / "a");
  EXPECT_FALSE(fs::exists(folder.path() / "a"));
}

TEST(Files, SyncNeedsAFile) {
  EXPECT_THROW(sync("/absent/file"), EnvironmentError);
  EXPECT_THROW(publish("/absent/a", "/absent/b"), EnvironmentError);
}

}  // namespace
}  // namespace moevar::files
