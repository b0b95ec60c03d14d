#include "timeline/clock.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "base/random.hpp"

namespace moevar::timeline {
namespace {

TEST(Clock, RawClockRises) {
  const auto first = monotonic_raw_ns();
  EXPECT_LE(first, monotonic_raw_ns());
  EXPECT_GT(first, 0);
}

TEST(Clock, OffsetTakesTheTightestBoundsOfQuickExchanges) {
  // client - server = 1000; the slow exchange would give looser bounds on one side only
  const std::vector<PingPong> burst{{10'000, 9'060, 10'100},    // offset in [940, 1040]
                                    {20'000, 19'010, 20'110},   // in [990, 1100]
                                    {30'000, 29'180, 30'900}};  // in [820, 1720]: too slow
  const auto point = offset_of(burst);
  EXPECT_EQ(point.lower, 990);
  EXPECT_EQ(point.upper, 1040);
  EXPECT_EQ(point.min_round_trip_ns, 100);
  EXPECT_EQ(point.at, 10'050);
}

TEST(Clock, OffsetIgnoresSlowExchangesEvenWhereTheyLookTight) {
  const std::vector<PingPong> burst{{10'000, 9'050, 10'100}, {20'000, 18'950, 20'900}};
  const auto point = offset_of(burst);
  EXPECT_EQ(point.lower, 950);
  EXPECT_EQ(point.upper, 1050);
}

TEST(Clock, ContradictingBoundsLeaveTheQuickestExchange) {
  const std::vector<PingPong> burst{{1000, 500, 1100}, {2000, 1000, 2110}};
  const auto point = offset_of(burst);
  EXPECT_EQ(point.lower, 500);
  EXPECT_EQ(point.upper, 600);
}

/// Exchanges between a client whose offset to the server is `offset` at epoch and grows by `drift`
/// per ns of its own clock, with a one-way time of 400 ns to 800 ns each way.
std::vector<OffsetPoint> exchanges(Nanoseconds epoch, double offset, double drift, int points) {
  std::vector<OffsetPoint> all;
  for (int i = 0; i < points; ++i) {
    std::vector<PingPong> burst;
    for (int j = 0; j < 20; ++j) {
      const auto key = RandomKey(11)[static_cast<std::uint64_t>(i)][static_cast<std::uint64_t>(j)];
      const Nanoseconds sent = epoch + i * 1'000'000'000LL + j * 2000;
      const auto there = static_cast<Nanoseconds>(400 + key[0].below(400));
      const auto back = static_cast<Nanoseconds>(400 + key[1].below(400));
      const Nanoseconds at = sent + there;
      const double exact = offset + drift * static_cast<double>(at - epoch);
      burst.push_back({sent, at - std::llround(exact), at + back});
    }
    all.push_back(offset_of(burst));
  }
  return all;
}

TEST(Clock, FitRecoversOffsetAndDrift) {
  const Nanoseconds epoch = 5'000'000'000'000'000;
  for (const double offset : {0.0, 123'456.0, -987'654'321'012.0}) {
    for (const double drift : {0.0, 4e-5, -2e-6}) {
      const auto points = exchanges(epoch, offset, drift, 10);
      const auto line = fit(points, epoch);
      EXPECT_GT(line.residual_ns, 0);
      EXPECT_LE(line.residual_ns, 800);
      EXPECT_GE(line.min_round_trip_ns, 800);
      for (const auto& p : points) {
        const double exact = offset + drift * static_cast<double>(p.at - epoch);
        EXPECT_NEAR(line.offset_ns(p.at), exact, static_cast<double>(line.residual_ns));
        EXPECT_NEAR(static_cast<double>(line.to_other(p.at) - p.at), -exact,
                    static_cast<double>(line.residual_ns) + 1.0);
      }
      // 9 s between the ends: an error of the residual at either end tilts the line by 2 r / 9 s
      EXPECT_NEAR(line.slope, drift, 2.0 * static_cast<double>(line.residual_ns) / 9e9);
    }
  }
}

TEST(Clock, FitLeavesOutPointsWithSlowExchanges) {
  auto points = exchanges(0, 1000.0, 0.0, 6);
  points[3].lower = -50'000;
  points[3].upper = -40'000;
  points[3].min_round_trip_ns = 10'000;
  const auto line = fit(points, 0);
  EXPECT_NEAR(line.offset_ns(points[3].at), 1000.0, static_cast<double>(line.residual_ns));
  EXPECT_LT(line.residual_ns, 1000);
}

TEST(Clock, OnePointGivesAnOffsetAlone) {
  const std::vector<OffsetPoint> points{{500, 90, 110, 20}};
  const auto line = fit(points, 100);
  EXPECT_EQ(line.slope, 0.0);
  EXPECT_EQ(line.intercept_ns, 100.0);
  EXPECT_EQ(line.residual_ns, 10);
  EXPECT_EQ(line.to_other(1000), 900);
}

TEST(Clock, CompositionIsOneMapAfterTheOther) {
  const ClockFit child{3e-5, 1234.5, 1000, 0, 700, 40};
  const ClockFit parent{-2e-5, -99.25, 1000, 0, 900, 50};
  const auto both = compose(child, parent);
  EXPECT_NEAR(1.0 - both.slope, (1.0 - 3e-5) * (1.0 + 2e-5), 1e-15);
  EXPECT_NEAR(both.intercept_ns, 1234.5 * (1.0 + 2e-5) - 99.25, 1e-9);
  EXPECT_EQ(both.residual_ns, 90);
  EXPECT_EQ(both.min_round_trip_ns, 900);
  for (const Nanoseconds t : {1000LL, 1'000'000LL, 7'000'000'000LL, 3'000'000'000'000LL}) {
    EXPECT_NEAR(static_cast<double>(both.to_other(t)),
                static_cast<double>(parent.to_other(child.to_other(t))), 2.0)
        << t;
  }
}

TEST(Clock, CompositionIsAssociativeAndHasANeutralElement) {
  const ClockFit a{1e-5, 10.0, 0, 0, 0, 1};
  const ClockFit b{-3e-5, 20.0, 0, 0, 0, 2};
  const ClockFit c{2e-5, -5.0, 0, 0, 0, 3};
  const auto left = compose(compose(a, b), c);
  const auto right = compose(a, compose(b, c));
  EXPECT_NEAR(left.slope, right.slope, 1e-18);
  EXPECT_NEAR(left.intercept_ns, right.intercept_ns, 1e-12);
  const auto same = compose(a, ClockFit{});
  EXPECT_EQ(same.slope, a.slope);
  EXPECT_EQ(same.intercept_ns, a.intercept_ns);
}

TEST(Clock, AReadingHasACostAndAStep) {
  const auto reading = time_clock_reading();
  EXPECT_GE(reading.step_ns, 1);
  EXPECT_GE(reading.cost_ns, 1.0);
  EXPECT_LT(reading.cost_ns, 1e5);
}

TEST(Clock, BetweenRunsThroughBothOffsets) {
  // poor slopes of short bursts do not spoil what lies between them
  const ClockFit before{1e-3, 500.0, 1'000'000, 1'000'000, 700, 30};
  const ClockFit after{-1e-3, 700.0, 9'000'000'000, 9'000'000'000, 800, 20};
  const auto line = between(before, after);
  EXPECT_NEAR(line.offset_ns(1'000'000), 500.0, 1e-9);
  EXPECT_NEAR(line.offset_ns(9'000'000'000), 700.0, 1e-6);
  EXPECT_NEAR(line.slope, 200.0 / 8.999e9, 1e-15);
  EXPECT_EQ(line.residual_ns, 30);
  EXPECT_EQ(line.min_round_trip_ns, 800);
}

}  // namespace
}  // namespace moevar::timeline
