#include "system/signals.hpp"

#include <chrono>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

namespace moevar::signals {
namespace {

/// The exit status of a process that does `work`; -signal where a signal ended it.
template <class Work>
int status_of(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void wait_a_little() { std::this_thread::sleep_for(std::chrono::seconds(2)); }

TEST(Signals, AThreadIsToldWhichCame) {
  for (const int signal : Watch::kSignals) {
    EXPECT_EQ(status_of([signal] {
                const Watch watch([](int came) { ::_exit(100 + came); });
                ::kill(::getpid(), signal);
                wait_a_little();
              }),
              100 + signal);
  }
}

TEST(Signals, AlsoWhereAThreadWasThereBefore) {
  EXPECT_EQ(status_of([] {
              std::thread(wait_a_little).detach();
              const Watch watch([](int came) { ::_exit(100 + came); });
              for (int i = 0; i < 100; ++i) {
                ::kill(::getpid(), SIGTERM);
              }
              wait_a_little();
            }),
            100 + SIGTERM);
}

TEST(Signals, AfterItEverythingIsAsBefore) {
  EXPECT_EQ(status_of([] {
              {
                const Watch watch([](int) { ::_exit(1); });
              }
              ::raise(SIGTERM);
            }),
            -SIGTERM);
  EXPECT_EQ(status_of([] { const Watch watch([](int) { ::_exit(1); }); }), 0) << "it ends quietly";
}

TEST(Signals, OthersAreLeftAlone) {
  EXPECT_EQ(status_of([] {
              const Watch watch([](int) { ::_exit(1); });
              ::raise(SIGUSR2);
            }),
            -SIGUSR2);
}

TEST(Signals, HaveNames) {
  EXPECT_EQ(name_of(SIGTERM), "SIGTERM");
  EXPECT_EQ(name_of(SIGUSR1), "SIGUSR1");
}

}  // namespace
}  // namespace moevar::signals
