#include "conditions/within.hpp"

#include <stdexcept>

#include <gtest/gtest.h>

namespace moevar::conditions {
namespace {

using std::chrono_literals::operator""ms;

TEST(Within, GivesTheResultOrTheError) {
  EXPECT_EQ(within(1000ms, "adding", [] { return 3; }), 3);
  EXPECT_THROW(within(1000ms, "failing", []() -> int { throw std::out_of_range("x"); }),
               std::out_of_range);
}

TEST(Within, DoesNotWaitForWhatHangs) {
  const auto begin = std::chrono::steady_clock::now();
  try {
    within(50ms, "hanging", [] { std::this_thread::sleep_for(500ms); });
    FAIL();
  } catch (const EnvironmentError& error) {
    EXPECT_NE(std::string(error.what()).find("hanging: the driver did not answer"),
              std::string::npos)
        << error.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 400ms);
}

}  // namespace
}  // namespace moevar::conditions
