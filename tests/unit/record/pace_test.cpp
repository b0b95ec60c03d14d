#include "record/pace.hpp"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

namespace moevar::record {
namespace {

using namespace std::chrono_literals;

TEST(Pace, FewPhasesAreWrittenEachTime) {
  Pace pace(256);
  int written = 0;
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(pace.whenever_due([&] {
      ++written;
      std::this_thread::sleep_for(1ms);
    }));
  }
  EXPECT_EQ(written, 5);
}

// A write of half a second is due again after five: nothing that follows at once is.
TEST(Pace, ManyPhasesWaitTenTimesAsLongAsTheWriteTook) {
  Pace pace(257);
  int written = 0;
  const auto slowly = [&] {
    ++written;
    std::this_thread::sleep_for(500ms);
  };
  EXPECT_TRUE(pace.whenever_due(slowly)) << "the first one is due at once";
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(pace.whenever_due(slowly));
  }
  EXPECT_EQ(written, 1);
}

TEST(Pace, ManyPhasesAreWrittenAgainOnceThatTimeIsOver) {
  Pace pace(1000);
  EXPECT_TRUE(pace.whenever_due([] { std::this_thread::sleep_for(1ms); }));
  std::this_thread::sleep_for(200ms);
  EXPECT_TRUE(pace.whenever_due([] {}));
}

}  // namespace
}  // namespace moevar::record
