#include "run/watchdog.hpp"

#include <chrono>
#include <future>
#include <string>
#include <thread>

#include <gtest/gtest.h>

namespace moevar::run {
namespace {

using std::chrono::milliseconds;

class WatchdogTest : public ::testing::Test {
 protected:
  mpi::Communicator world_ = mpi::Communicator::world();

  /// The line that this rank's watchdog says while `work` runs; "" where it says none.
  template <class Work>
  std::string line_of(Seconds limit, const Work& work) {
    std::promise<std::string> said;
    auto line = said.get_future();
    {
      const Watchdog dog(world_, limit, [&](const std::string& text) { said.set_value(text); });
      work();
    }
    return line.wait_for(milliseconds(0)) == std::future_status::ready ? line.get() : "";
  }
};

TEST_F(WatchdogTest, SaysNothingOfARunThatGetsOn) {
  const auto line = line_of(Seconds(1.0), [&] {
    for (int i = 0; i < 30; ++i) {
      std::this_thread::sleep_for(milliseconds(100));
      world_.barrier();
    }
  });
  EXPECT_EQ(line, "");
}

TEST_F(WatchdogTest, NamesTheRankThatDoesNotArrive) {
  const int last = world_.size() - 1;
  const auto line = line_of(Seconds(1.0), [&] {
    whereabouts::enter_stage("a test");
    world_.barrier();
    if (world_.rank() == last) {
      std::this_thread::sleep_for(milliseconds(3000));
    }
    world_.barrier();
  });
  if (world_.size() == 1) {
    EXPECT_EQ(line, "") << "nobody waits for it";
  } else if (world_.is_root()) {
    const auto expected = "rank " + std::to_string(last) + " on ";
    EXPECT_EQ(line.find(expected), 0U) << line;
    EXPECT_NE(line.find("a test did not arrive within 1 s"), std::string::npos) << line;
  } else {
    EXPECT_EQ(line, "") << "rank 0 has seen all and speaks alone";
  }
}

}  // namespace
}  // namespace moevar::run
