#include "device_clock/device_clock.hpp"

#include <atomic>
#include <cmath>
#include <ctime>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "device_clock/exchange.hpp"

namespace moevar::device_clock {
namespace {

/// A GPU's clock that starts at its own zero, drifts and moves in steps.
struct FakeGpu {
  double offset_ns;  ///< host − GPU at host time 0
  double drift;      ///< what the GPU loses on the host
  Nanoseconds step;

  [[nodiscard]] double exact(double host) const { return host * (1.0 - drift) - offset_ns; }
  [[nodiscard]] Nanoseconds reading(double host) const {
    return static_cast<Nanoseconds>(std::floor(exact(host) / static_cast<double>(step))) * step;
  }
};

/// Exchanges from `begin` on: way there and back of 800 ns and more, with a long tail.
std::vector<Round> burst(const FakeGpu& gpu, Nanoseconds begin, std::size_t count,
                         std::uint64_t key) {
  std::vector<Round> rounds;
  rounds.reserve(count);
  auto host = static_cast<double>(begin);
  for (std::size_t i = 0; i < count; ++i) {
    const auto random = RandomKey(key)[i];
    const double there = 800.0 - 400.0 * std::log(random[0].uniform());
    const double back = 800.0 - 400.0 * std::log(random[1].uniform());
    rounds.push_back({static_cast<Nanoseconds>(std::floor(host)), gpu.reading(host + there),
                      static_cast<Nanoseconds>(std::ceil(host + there + back))});
    host += there + back + 50.0;
  }
  return rounds;
}

TEST(DeviceClock, AnOffsetsBoundsHoldTheTruth) {
  for (const Nanoseconds step : {1, 32, 1024, 1'000'000}) {
    for (const double offset : {0.0, -1.7e18, 12345.6}) {
      const FakeGpu gpu{offset, 0.0, step};
      const auto rounds = burst(gpu, 5'000'000'000, 256, 1);
      const Offset found = offset_of(rounds, step);
      // doubles of 1e18 stand 256 apart
      const double grain = std::abs(offset) > 1e15 ? 512.0 : 1.0;
      EXPECT_LE(static_cast<double>(found.lower), offset + grain) << step;
      EXPECT_GE(static_cast<double>(found.upper), offset - grain) << step;
      EXPECT_LE(std::abs(found.middle_ns() - offset),
                static_cast<double>(found.residual_ns()) + grain);
      EXPECT_EQ(found.step_ns, step);
      // no wider than the quickest exchange and a step
      EXPECT_LE(found.upper - found.lower, found.min_round_trip_ns + step);
    }
  }
}

/// Many rounds bound the difference more tightly than the quickest does alone.
TEST(DeviceClock, ManyRoundsAreBetterThanOne) {
  const FakeGpu gpu{987654.0, 0.0, 32};
  const auto rounds = burst(gpu, 1'000'000, 256, 2);
  const Offset many = offset_of(rounds, 32);
  EXPECT_LT(many.upper - many.lower, many.min_round_trip_ns + many.step_ns);
}

TEST(DeviceClock, SlowRoundsCountForNothing) {
  const Offset quick = offset_of(std::vector<Round>{{100, 1000, 200}}, 1);
  EXPECT_EQ(quick.lower, -901);
  EXPECT_EQ(quick.upper, -800);
  EXPECT_EQ(quick.at, 1000);
  EXPECT_EQ(quick.min_round_trip_ns, 100);
  // a slow one that contradicts it, and one within 1.5 × that narrows it from above
  const Offset both = offset_of(
      std::vector<Round>{
          {100, 1000, 200}, {500, 9000, 900}, {1000, 1905, 1150}, {3000, 3890, 3100}},
      1);
  EXPECT_EQ(both.lower, -891);
  EXPECT_EQ(both.upper, -790 - 10);
}

TEST(DeviceClock, ContradictionsLeaveTheQuickestAlone) {
  const Offset found = offset_of(std::vector<Round>{{0, 0, 100}, {1000, 2000, 1110}}, 1);
  EXPECT_EQ(found.lower, -1);
  EXPECT_EQ(found.upper, 100);
}

TEST(DeviceClock, RefusesRoundsThatAreNone) {
  EXPECT_THROW(offset_of({}, 1), InputError);
  EXPECT_THROW(offset_of(std::vector<Round>{{10, 5, 9}}, 1), InputError);
}

/// Stamps of a phase come out on the host's clock within the residual that is told, drift and all.
TEST(DeviceClock, TwoCalibrationsTellTheTimeBetweenThem) {
  for (const double drift : {0.0, 3e-5, -8e-5}) {
    for (const Nanoseconds step : {1, 32, 1024}) {
      const FakeGpu gpu{-4.2e14, drift, step};
      constexpr Nanoseconds kEnd = 60'000'000'000;
      const Offset before = offset_of(burst(gpu, 1'000'000, 256, 3), step);
      const Offset after = offset_of(burst(gpu, kEnd, 256, 4), step);
      const DeviceClock clock = between(before, after);
      EXPECT_NEAR(clock.slope, drift, 1e-7);
      EXPECT_LE(clock.residual_ns, 1500 + step);
      for (Nanoseconds host = 1'000'000; host < kEnd; host += 977'777'777) {
        // a burst's own drift (0.6 ms × 8e-5 = 48 ns) and a stamp's step come on top
        EXPECT_NEAR(static_cast<double>(clock.to_host(gpu.reading(static_cast<double>(host)))),
                    static_cast<double>(host), static_cast<double>(clock.residual_ns + step + 60))
            << drift << " " << step;
      }
    }
  }
}

TEST(DeviceClock, OneCalibrationAloneHasNoSlope) {
  const Offset offset{1000, -20, 40, 60, 32};
  const DeviceClock clock = at_once(offset);
  EXPECT_EQ(clock.to_host(5000), 5010);
  EXPECT_EQ(clock.residual_ns, 30);
  EXPECT_FALSE(clock.tells(319));
  EXPECT_TRUE(clock.tells(320));
  EXPECT_EQ(between(offset, offset).slope, 0.0);
}

Nanoseconds host_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<Nanoseconds>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

/// A thread in the place of the GPU's kernel, whose clock is 5 ms behind.
TEST(DeviceClock, AskMeetsAnAnsweringThread) {
  constexpr Nanoseconds kBehind = 5'000'000;
  std::uint32_t question = 0;
  std::vector<std::uint64_t> answers(64, 0);
  std::thread gpu([&] {
    for (std::uint32_t round = 1; round <= answers.size(); ++round) {
      while (std::atomic_ref(question).load() < round) {
        std::this_thread::yield();
      }
      std::atomic_ref(answers[round - 1]).store(static_cast<std::uint64_t>(host_ns() - kBehind));
    }
  });
  const auto rounds = ask(question, answers, host_ns, 60'000'000'000);
  gpu.join();
  ASSERT_EQ(rounds.size(), answers.size());
  EXPECT_EQ(question, answers.size());
  const Offset found = offset_of(rounds, 1);
  EXPECT_LE(found.lower, kBehind);
  EXPECT_GE(found.upper, kBehind);
}

TEST(DeviceClock, AskGivesUp) {
  std::uint32_t question = 0;
  std::vector<std::uint64_t> answers(4, 0);
  answers[0] = 17;  // one answer, and silence
  const Nanoseconds begin = host_ns();
  const auto rounds = ask(question, answers, host_ns, 20'000'000);
  EXPECT_EQ(rounds.size(), 1U);
  EXPECT_EQ(rounds[0].stamped, 17);
  EXPECT_EQ(question, 2U);
  EXPECT_GE(host_ns() - begin, 20'000'000);
}

}  // namespace
}  // namespace moevar::device_clock
