#include "system/signals.hpp"

#include <atomic>
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

void ignore(int /*signal*/) {}
void end_with(int signal) { ::_exit(100 + signal); }

TEST(Signals, AThreadIsToldWhichCame) {
  for (const int signal : {SIGTERM, SIGHUP}) {
    EXPECT_EQ(status_of([signal] {
                const Watch watch(ignore, end_with);
                ::kill(::getpid(), signal);
                wait_a_little();
              }),
              100 + signal);
  }
}

TEST(Signals, TheFirstOfSomeIsARequest) {
  for (const int signal : Watch::kRequests) {
    EXPECT_EQ(status_of([signal] {
                static std::atomic<int> told{0};
                const Watch watch([](int came) { told = came; }, end_with);
                const int before = watch.requested();
                ::kill(::getpid(), signal);
                wait_a_little();
                ::_exit(before == 0 && watch.requested() == signal && told == signal ? 7 : 1);
              }),
              7);
  }
}

TEST(Signals, TheSecondIsAnOrderUnlessItIsTheSameOneToldTwice) {
  EXPECT_EQ(status_of([] {
              const Watch watch(ignore, end_with);
              ::kill(::getpid(), SIGINT);
              wait_a_little();
              ::kill(::getpid(), SIGUSR1);
              wait_a_little();
            }),
            100 + SIGUSR1);
  EXPECT_EQ(status_of([] {
              const Watch watch(ignore, end_with);
              ::kill(::getpid(), SIGUSR1);
              std::this_thread::sleep_for(std::chrono::milliseconds(50));
              ::kill(::getpid(), SIGUSR1);
              wait_a_little();
            }),
            0);
}

TEST(Signals, AlsoWhereAThreadWasThereBefore) {
  EXPECT_EQ(status_of([] {
              std::thread(wait_a_little).detach();
              const Watch watch(ignore, end_with);
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
                const Watch watch(ignore, [](int) { ::_exit(1); });
              }
              ::raise(SIGTERM);
            }),
            -SIGTERM);
  EXPECT_EQ(status_of([] { const Watch watch(ignore, [](int) { ::_exit(1); }); }), 0)
      << "it ends quietly";
}

TEST(Signals, WhatWasToBeIgnoredIs) {
  EXPECT_EQ(status_of([] {
              std::signal(SIGHUP, SIG_IGN);
              const Watch watch(ignore, end_with);
              ::raise(SIGHUP);
              wait_a_little();
            }),
            0);
}

TEST(Signals, AnotherRequestOnTheWayToTheEndChangesNothing) {
  EXPECT_EQ(status_of([] {
              {
                const Watch watch(ignore, end_with);
                ::raise(SIGINT);
                wait_a_little();
              }
              ::raise(SIGUSR1);
              ::raise(SIGINT);
            }),
            0);
}

TEST(Signals, OthersAreLeftAlone) {
  EXPECT_EQ(status_of([] {
              const Watch watch(ignore, [](int) { ::_exit(1); });
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
