#include "conditions/cap.hpp"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::conditions {
namespace {

constexpr CapLimits kH100{200, 700, 700};

TEST(Cap, IsTheRequestOrTheDefault) {
  EXPECT_EQ(requested_limit_w(kH100, 350.0), 350.0);
  EXPECT_EQ(requested_limit_w(kH100, 200.0), 200.0);
  EXPECT_EQ(requested_limit_w(kH100, std::nullopt), 700.0);
}

TEST(Cap, OutsideTheRangeIsRefusedNotClamped) {
  for (const double watts : {199.9, 700.1, -1.0, std::nan("")}) {
    EXPECT_THROW((void)requested_limit_w(kH100, watts), InputError) << watts;
  }
  try {
    (void)requested_limit_w(kH100, 900.0);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "900 W is outside what the device accepts, 200 to 700 W");
  }
}

}  // namespace
}  // namespace moevar::conditions
