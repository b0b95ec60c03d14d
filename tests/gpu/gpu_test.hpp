#pragma once

#include <cstdlib>
#include <string_view>

#include <gtest/gtest.h>

#include "system/gpu.hpp"

/// A test that needs a GPU is a TEST_F of this, or of a fixture made from it: without one it is
/// skipped, with the reason. MOEVAR_GPU_TESTS=required makes a missing GPU a failure instead.
class GpuTest : public testing::Test {
 protected:
  /// What a fixture does where there is a GPU.
  virtual void set_up() {}

  void SetUp() final {
    if (const auto why = moevar::gpu::why_none_visible(); !why.empty()) {
      const char* required = std::getenv("MOEVAR_GPU_TESTS");
      ASSERT_FALSE(required != nullptr && std::string_view(required) == "required") << why;
      GTEST_SKIP() << why;
    }
    set_up();
  }
};
