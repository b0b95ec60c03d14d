#include "system/patience.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "system/affinity.hpp"
#include "system/whereabouts.hpp"

namespace moevar {
namespace {

using std::chrono::milliseconds;

TEST(Patience, AsksUntilItIsDone) {
  int asked = 0;
  wait_until(
      "a test", {"nobody"},
      [&] {
        EXPECT_STREQ(whereabouts::now().call, "a test");  // a watchdog sees that it waits
        return ++asked == 5;
      },
      "nothing");
  EXPECT_EQ(asked, 5);
  EXPECT_EQ(whereabouts::now().call, nullptr);
}

TEST(Patience, EndsWithWhoWhatAndWhatToDo) {
  const auto start = std::chrono::steady_clock::now();
  try {
    wait_until(
        "a test", {"rank 3 on n7", milliseconds(30)}, [] { return false; }, "do this");
    FAIL() << "it was never done";
  } catch (const EnvironmentError& error) {
    EXPECT_STREQ(error.what(), "rank 3 on n7: a test was not done after 0.03 s: do this");
  }
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(30));
  EXPECT_EQ(whereabouts::now().call, nullptr);
}

TEST(Patience, WhatIsAskedMayThrow) {
  const auto ask = []() -> bool { throw CheckError("wrong"); };
  EXPECT_THROW(wait_until("a test", {"nobody"}, ask, "nothing"), CheckError);
}

TEST(Patience, ProcessesAreNamedByRankHostAndGpu) {
  EXPECT_EQ(describe_process(2, "GPU-7"), "rank 2 on " + affinity::host_name() + ", GPU-7");
  EXPECT_EQ(describe_process(0, ""), "rank 0 on " + affinity::host_name());
}

}  // namespace
}  // namespace moevar
