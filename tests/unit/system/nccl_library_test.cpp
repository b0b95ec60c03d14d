#include <cstdlib>
#include <dlfcn.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "system/host.hpp"
#include "system/nccl.hpp"

namespace moevar::nccl {
namespace {

/// A process loads NCCL once: what concerns a missing one has a process of its own.
std::string why_unavailable_as(const std::string& file) {
  setenv("MOEVAR_NCCL", file.c_str(), 1);
  return why_unavailable();
}

void end_with(bool right) { std::_Exit(right ? 0 : 1); }

TEST(NcclLibraryDeathTest, AMissingOneIsAnErrorThatNamesItWhenNeeded) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const auto why = why_unavailable_as("/nowhere/libnccl.so.2");
        bool thrown = false;
        try {
          (void)version();
        } catch (const EnvironmentError& error) {
          thrown = error.what() == why;
        }
        end_with(thrown && !shares_gpus() &&
                 why.find("NCCL cannot be loaded: /nowhere/libnccl.so.2:") == 0 &&
                 why.find("MOEVAR_NCCL") != std::string::npos);
      },
      testing::ExitedWithCode(0), "");
}

TEST(NcclLibraryDeathTest, AnotherLibraryIsRefused) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(end_with(why_unavailable_as("libc.so.6") == "libc.so.6 is no NCCL of 2.14 or later"),
              testing::ExitedWithCode(0), "");
}

TEST(NcclLibrary, TheInstalledOneTellsItsVersion) {
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    EXPECT_NE(why_unavailable(), "");
    EXPECT_EQ(host::libraries().at("NCCL"), "none");
    GTEST_SKIP() << "no NCCL here";
  }
  int installed = 0;
  auto* ask = reinterpret_cast<int (*)(int*)>(dlsym(library, "ncclGetVersion"));
  ASSERT_EQ(ask(&installed), 0);
  EXPECT_EQ(version(), installed);
  EXPECT_EQ(host::libraries().at("NCCL"), version_text(installed));
}

TEST(NcclLibrary, VersionsAreReadAsNcclWritesThem) {
  EXPECT_EQ(version_text(22809), "2.28.9");
  EXPECT_EQ(version_text(23003), "2.30.3");
}

}  // namespace
}  // namespace moevar::nccl
