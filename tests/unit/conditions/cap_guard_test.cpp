#include "conditions/cap_guard.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "conditions/capture.hpp"
#include "fake_gpus.hpp"

namespace moevar::conditions {
namespace {

using fake_nvml::FakeGpus;
using std::chrono_literals::operator""ms;

GuardOptions options(std::chrono::milliseconds patience = 1000ms) {
  GuardOptions chosen;
  chosen.study = "test";
  chosen.program = MOEVAR_BINARY;
  chosen.patience = patience;
  return chosen;
}

std::vector<Milliwatts> both(Milliwatts limit) { return {limit, limit}; }

/// The guardians of this test's GPUs, by their command line.
std::vector<pid_t> guardians(const std::filesystem::path& folder) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "cmdline");
    const std::string words{std::istreambuf_iterator<char>(file), {}};
    if (words.find(std::string("guard\0", 6) + folder.string()) != std::string::npos) {
      found.push_back(std::stoi(entry.path().filename()));
    }
  }
  return found;
}

class Guard : public testing::Test {
 protected:
  void SetUp() override { gpus.reset(); }

  /// Requested and enforced limits of the first two GPUs are these.
  bool all_at(std::uint64_t limit) {
    const auto now = fake_nvml::now_ns();
    for (int i = 0; i < 2; ++i) {
      if (requested_mw(gpus.gpu(i), now) != limit || enforced_mw(gpus.gpu(i), now) != limit) {
        return false;
      }
    }
    return true;
  }
  bool back() { return all_at(700'000) && captured_uuids(gpus.folder()).empty(); }
  bool back_within(std::chrono::milliseconds limit) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!back() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(5ms);
    }
    return back();
  }

  /// Runs `work` in a process of its own.
  static pid_t start(const std::function<void()>& work) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        work();
      } catch (const std::exception& error) {
        std::fputs(error.what(), stderr);
      }
      ::_exit(0);
    }
    return child;
  }
  /// An owner of the first two GPUs that does `work`, then kills itself as SIGKILL does.
  static void own_and_die(const std::function<void(CapGuard&)>& work) {
    ::waitpid(start([&] {
                CapGuard guard(FakeGpus::uuids(2), options());
                work(guard);
                ::raise(SIGKILL);
              }),
              nullptr, 0);
  }

  FakeGpus& gpus = FakeGpus::only();
};

TEST_F(Guard, SetsReadsBackAndRestoresWhatItFound) {
  gpus.gpu(0).requested_mw = 600'000;  // not the default: what was found is put back
  {
    CapGuard guard(FakeGpus::uuids(2), options());
    EXPECT_EQ(guard.previous(), (std::vector<Milliwatts>{600'000, 700'000}));
    const auto caps = guard.set(both(500'000));
    EXPECT_EQ(caps[0].requested_w, 500.0);
    EXPECT_EQ(caps[1].enforced_w, 500.0);
    EXPECT_EQ(caps[1].default_w, 700.0);
    EXPECT_EQ(caps[1].min_w, 200.0);
    EXPECT_TRUE(all_at(500'000));
    EXPECT_EQ(captured_uuids(gpus.folder()).size(), 2U);
    guard.restore();
    EXPECT_EQ(gpus.gpu(0).requested_mw, 600'000U);
    EXPECT_EQ(gpus.gpu(1).requested_mw, 700'000U);
    EXPECT_TRUE(captured_uuids(gpus.folder()).empty());
    EXPECT_THROW(guard.set(both(500'000)), EnvironmentError) << "given back";
  }
  EXPECT_FALSE(a_restore_failed());
  EXPECT_FALSE(holds_limits());
  // free again at once: the guardian has gone
  const CapGuard next(FakeGpus::uuids(2), options());
}

TEST_F(Guard, TheDestructorRestores) {
  try {
    CapGuard guard(FakeGpus::uuids(2), options());
    guard.set(both(300'000));
    throw std::runtime_error("something else went wrong");
  } catch (const std::runtime_error&) {
    EXPECT_TRUE(back());
  }
}

TEST_F(Guard, RefusesWhatIsOutOfRangeBeforeItWritesAny) {
  CapGuard guard(FakeGpus::uuids(2), options());
  const auto before = gpus.gpu(0).writes.load();
  EXPECT_THROW(guard.set({500'000, 100'000}), InputError);
  EXPECT_EQ(gpus.gpu(0).writes, before);
}

TEST_F(Guard, WithoutPermissionNothingIsLeft) {
  gpus.gpu(1).refuse = 1;
  EXPECT_THROW(CapGuard(FakeGpus::uuids(2), options()), EnvironmentError);
  EXPECT_TRUE(back());
  EXPECT_FALSE(holder_of(gpus.folder(), FakeGpus::uuid(0)).has_value());
}

TEST_F(Guard, WithoutAGuardianNothingIsWritten) {
  auto broken = options();
  broken.program = "/nonexistent";
  EXPECT_THROW(CapGuard(FakeGpus::uuids(2), broken), EnvironmentError);
  EXPECT_TRUE(back());
}

TEST_F(Guard, AClampIsToldNotHidden) {
  gpus.gpu(0).clamp_mw = 550'000;
  CapGuard guard(FakeGpus::uuids(2), options(200ms));
  const auto caps = guard.set(both(500'000));
  EXPECT_EQ(caps[0].requested_w, 500.0);
  EXPECT_EQ(caps[0].enforced_w, 550.0);
  EXPECT_EQ(caps[1].enforced_w, 500.0);
  guard.restore();
  EXPECT_TRUE(back());
}

TEST_F(Guard, WaitsForASlowDriver) {
  gpus.gpu(1).slow_ms = 400;
  CapGuard guard(FakeGpus::uuids(2), options(3000ms));
  EXPECT_EQ(guard.set(both(500'000))[1].enforced_w, 500.0);
  guard.restore();
  EXPECT_TRUE(back());
}

TEST_F(Guard, SaysWhatChangedByItself) {
  CapGuard guard(FakeGpus::uuids(2), options());
  guard.set(both(500'000));
  EXPECT_TRUE(guard.watch().empty());
  gpus.gpu(1).revert_ms = 1;
  std::this_thread::sleep_for(5ms);
  const auto changes = guard.watch();
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_NE(changes[0].find("from 500 to 700 W"), std::string::npos) << changes[0];
  EXPECT_TRUE(guard.watch().empty()) << "told once";
}

TEST_F(Guard, WhatAnAdministratorSetIsNotTakenForTheRuns) {
  own_and_die([&](CapGuard& guard) {
    guard.set(both(500'000));
    gpus.gpu(1).requested_mw = 555'000;
    if (guard.watch().size() != 1) {
      ::_exit(1);
    }
  });
  const auto deadline = std::chrono::steady_clock::now() + 5000ms;
  while (holder_of(gpus.folder(), FakeGpus::uuid(1)) &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_FALSE(holder_of(gpus.folder(), FakeGpus::uuid(1))) << "there is nothing to try again";
  EXPECT_EQ(gpus.gpu(0).requested_mw, 700'000U);
  EXPECT_EQ(gpus.gpu(1).requested_mw, 555'000U);
  EXPECT_EQ(captured_uuids(gpus.folder()), std::vector{FakeGpus::uuid(1)});
  EXPECT_FALSE(load_capture(gpus.folder(), FakeGpus::uuid(1))->has(555'000));
}

TEST_F(Guard, AWriteThatHangsIsGivenUpAndTheCaptureIsKept) {
  std::array<int, 2> told{};
  ASSERT_EQ(::pipe(told.data()), 0);
  const pid_t child = start([&] {
    auto chosen = options(300ms);
    chosen.call_limit = 100ms;
    int status = 0;
    {
      CapGuard guard(FakeGpus::uuids(2), chosen);
      guard.set(both(500'000));
      gpus.gpu(1).block_set_ms = 1500;
      const auto begin = std::chrono::steady_clock::now();
      try {
        guard.set(both(400'000));
      } catch (const Unanswered&) {
        status = std::chrono::steady_clock::now() - begin < 1000ms ? 1 : 2;
      }
      gpus.gpu(1).block_set_ms = 0;  // a later write overtakes the one that hangs
      try {
        guard.restore();
      } catch (const Error& error) {
        status = status == 1 ? static_cast<int>(error.status()) : 3;
      }
      if (gpus.gpu(1).requested_mw != 700'000U) {
        status = 6;
      }
    }
    if (!holder_of(gpus.folder(), FakeGpus::uuid(1)) || guardians(gpus.folder()).size() != 1) {
      status = 7;
    }
    while (gpus.gpu(1).requested_mw != 400'000U) {  // the one that hung comes to pass after all
      std::this_thread::sleep_for(5ms);
    }
    ::_exit(a_restore_failed() && !restore_all_now() ? status : 8);
  });
  int end = 0;
  ::waitpid(child, &end, 0);
  EXPECT_EQ(WEXITSTATUS(end), 5);
  EXPECT_TRUE(back_within(5000ms)) << "the guardian was not dismissed";
}

TEST_F(Guard, AHungWriteThatEndedInTimeIsForgotten) {
  auto chosen = options(300ms);
  chosen.call_limit = 100ms;
  CapGuard guard(FakeGpus::uuids(2), chosen);
  gpus.gpu(1).block_set_ms = 250;
  EXPECT_THROW(guard.set(both(400'000)), Unanswered);
  gpus.gpu(1).block_set_ms = 0;
  std::this_thread::sleep_for(400ms);
  guard.restore();
  EXPECT_TRUE(back());
}

TEST_F(Guard, ALimitThatCannotBeSavedIsNotSet) {
  const pid_t child = start([&] {
    CapGuard guard(FakeGpus::uuids(2), options());
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit all{};
    ::getrlimit(RLIMIT_FSIZE, &all);
    const rlimit none{0, all.rlim_max};
    int status = 0;
    for (int attempt = 0; attempt < 2; ++attempt) {  // nor the second time
      ::setrlimit(RLIMIT_FSIZE, &none);
      try {
        guard.set(both(400'000));
      } catch (const EnvironmentError&) {
        ++status;
      }
      ::setrlimit(RLIMIT_FSIZE, &all);
    }
    ::_exit(gpus.gpu(0).requested_mw == 700'000U ? status : 9);
  });
  int end = 0;
  ::waitpid(child, &end, 0);
  EXPECT_EQ(WEXITSTATUS(end), 2);
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, ALostGpuKeepsNoOtherWaiting) {
  own_and_die([&](CapGuard& guard) {
    guard.set(both(400'000));
    gpus.gpu(0).lost = 1;
  });
  const auto deadline = std::chrono::steady_clock::now() + 5000ms;
  while (captured_uuids(gpus.folder()) != std::vector{FakeGpus::uuid(0)} &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_EQ(captured_uuids(gpus.folder()), std::vector{FakeGpus::uuid(0)});
  EXPECT_EQ(gpus.gpu(1).requested_mw, 700'000U);
  EXPECT_EQ(gpus.gpu(0).requested_mw, 400'000U);
  gpus.gpu(0).lost = 0;
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, ARelativeStateFolderIsTheGuardiansToo) {
  const auto here = std::filesystem::current_path();
  std::filesystem::current_path(gpus.folder().parent_path());
  ::setenv("MOEVAR_STATE_DIR", "state", 1);
  own_and_die([](CapGuard& guard) { guard.set(both(400'000)); });
  ::setenv("MOEVAR_STATE_DIR", gpus.folder().c_str(), 1);
  std::filesystem::current_path(here);
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, ASecondOwnerIsRefusedByName) {
  const CapGuard first({FakeGpus::uuid(1)}, options());
  try {
    const CapGuard second(FakeGpus::uuids(2), options());
    FAIL();
  } catch (const EnvironmentError& error) {
    EXPECT_NE(std::string(error.what()).find(fmt::format("held by process {}", ::getpid())),
              std::string::npos)
        << error.what();
  }
}

TEST_F(Guard, AFailedRestoreKeepsTheFileAndIsTold) {
  // in a process of its own: that a restore failed is never forgotten
  const pid_t child = start([&] {
    int status = 1;
    {
      CapGuard guard(FakeGpus::uuids(2), options(200ms));
      guard.set(both(500'000));
      gpus.gpu(1).lost = 1;
      try {
        guard.restore();
      } catch (const Error& error) {
        status = static_cast<int>(error.status());
      }
    }
    ::_exit(a_restore_failed() ? status : 0);
  });
  int end = 0;
  ::waitpid(child, &end, 0);
  EXPECT_EQ(WEXITSTATUS(end), 5);
  EXPECT_EQ(captured_uuids(gpus.folder()), std::vector{FakeGpus::uuid(1)});
  EXPECT_EQ(gpus.gpu(0).requested_mw, 700'000U) << "one lost GPU is no reason to leave the other";
  gpus.gpu(1).lost = 0;  // the guardian goes on trying
  EXPECT_TRUE(back_within(5000ms));
}

// the owner dies at each of its steps; its guardian heals

TEST_F(Guard, DiesWithTheLimitsCaptured) {
  own_and_die([](CapGuard&) {});
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, DiesAfterSet) {
  own_and_die([&](CapGuard& guard) {
    guard.set(both(400'000));
    if (!all_at(400'000)) {
      ::_exit(1);
    }
  });
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, DiesAfterSeveral) {
  own_and_die([](CapGuard& guard) {
    guard.set(both(400'000));
    guard.set({300'000, 500'000});
    (void)guard.watch();
  });
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, DiesInsideACallThatSets) {
  const pid_t owner = start([&] {
    CapGuard guard(FakeGpus::uuids(2), options());
    gpus.gpu(1).block_set_ms = 500;  // the first GPU is written, the second not yet
    guard.set(both(400'000));
  });
  while (gpus.gpu(0).requested_mw != 400'000U) {
    std::this_thread::sleep_for(1ms);
  }
  std::this_thread::sleep_for(50ms);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, DiesWhileItWaitsForAReadBack) {
  const pid_t owner = start([&] {
    gpus.gpu(0).slow_ms = 400;
    CapGuard guard(FakeGpus::uuids(2), options(3000ms));
    guard.set(both(400'000));
  });
  while (gpus.gpu(1).requested_mw != 400'000U) {
    std::this_thread::sleep_for(1ms);
  }
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, DiesInsideItsRestore) {
  const pid_t owner = start([&] {
    CapGuard guard(FakeGpus::uuids(2), options());
    guard.set(both(400'000));
    gpus.gpu(1).block_set_ms = 500;
    guard.restore();
  });
  while (gpus.gpu(1).block_set_ms != 500U || gpus.gpu(0).requested_mw != 700'000U) {
    std::this_thread::sleep_for(1ms);
  }
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, DiesBetweenRestoreAndReadBack) {
  gpus.gpu(0).slow_ms = gpus.gpu(1).slow_ms = 500;
  const pid_t owner = start([&] {
    CapGuard guard(FakeGpus::uuids(2), options(3000ms));
    guard.set(both(400'000));
    guard.restore();
  });
  for (const std::uint64_t limit : {400'000U, 700'000U}) {
    while (gpus.gpu(1).requested_mw != limit) {
      std::this_thread::sleep_for(1ms);
    }
  }
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  EXPECT_EQ(captured_uuids(gpus.folder()).size(), 2U) << "400 W is still enforced";
  EXPECT_TRUE(back_within(5000ms));
}

TEST_F(Guard, TheNextStartHealsWhereTheGuardianDiedToo) {
  const pid_t owner = start([&] {
    CapGuard guard(FakeGpus::uuids(2), options());
    guard.set(both(400'000));
    ::pause();
  });
  while (!all_at(400'000)) {
    std::this_thread::sleep_for(1ms);
  }
  const auto found = guardians(gpus.folder());
  ASSERT_EQ(found.size(), 1U);
  ::kill(found[0], SIGTERM);  // a scheduler's warning: it stays
  std::this_thread::sleep_for(50ms);
  ASSERT_EQ(guardians(gpus.folder()).size(), 1U);
  ::kill(found[0], SIGKILL);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  std::this_thread::sleep_for(300ms);
  EXPECT_TRUE(all_at(400'000)) << "nobody is left to heal";
  EXPECT_EQ(holder_of(gpus.folder(), FakeGpus::uuid(0)), std::nullopt);
  {
    const CapGuard next(FakeGpus::uuids(2), options());
    EXPECT_EQ(next.previous(), both(700'000));
  }
  EXPECT_TRUE(back());
}

TEST_F(Guard, RestoreAllNowEndsAllWriting) {
  const pid_t child = start([&] {
    CapGuard guard(FakeGpus::uuids(2), options());
    guard.set(both(400'000));
    std::thread([&guard] {
      for (Milliwatts limit = 300'000;; ++limit) {
        guard.set(both(limit));
      }
    }).detach();
    std::this_thread::sleep_for(30ms);
    const bool all = restore_all_now();
    std::this_thread::sleep_for(100ms);
    ::_exit(all ? 4 : 5);
  });
  int end = 0;
  ::waitpid(child, &end, 0);
  EXPECT_EQ(WEXITSTATUS(end), 4);
  EXPECT_TRUE(back());
}

}  // namespace
}  // namespace moevar::conditions
