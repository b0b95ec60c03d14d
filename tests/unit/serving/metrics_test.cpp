#include "serving/metrics.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "serve.hpp"

namespace moevar::serving {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Served served(double intended_s, double started_s, double first_token_s, double finished_s,
              std::int32_t output_tokens) {
  return {.intended_s = intended_s,
          .started_s = started_s,
          .first_token_s = first_token_s,
          .finished_s = finished_s,
          .input_tokens = 1,
          .output_tokens = output_tokens};
}

/// TTFT 1, 1.5, 2 s; TPOT 0.5 s, none, 0.25 s.
std::vector<Served> three_requests() {
  return {served(0.0, 0.0, 1.0, 2.0, 3), served(0.5, 1.0, 2.0, 2.0, 1),
          served(2.0, 2.5, 4.0, 5.0, 5)};
}

TEST(Metrics, OfThreeRequestsWorkedByHand) {
  const auto metrics = measure(three_requests(), {.ttft_ms = 1500.0, .tpot_ms = 250.0});
  EXPECT_EQ(metrics.requests, 3U);
  EXPECT_EQ(metrics.ttft_ms.n, 3U);
  EXPECT_EQ(metrics.ttft_ms.p50.value, 1500.0);
  EXPECT_EQ(metrics.ttft_ms.p90.value, 2000.0);
  ASSERT_TRUE(metrics.tpot_ms);
  EXPECT_EQ(metrics.tpot_ms->n, 2U);
  EXPECT_EQ(metrics.tpot_ms->p50.value, 250.0);
  EXPECT_EQ(metrics.tpot_ms->p99.value, 500.0);
  EXPECT_EQ(metrics.e2e_ms.p50.value, 2000.0);
  EXPECT_EQ(metrics.e2e_ms.p99.value, 3000.0);
  // the first misses its TPOT, the third its TTFT; the second has no TPOT
  EXPECT_EQ(metrics.attainment.value, 1.0 / 3.0);
  EXPECT_EQ(metrics.duration_s, 5.0);
  EXPECT_DOUBLE_EQ(metrics.goodput_rps, 0.2);
  EXPECT_DOUBLE_EQ(metrics.throughput_rps, 0.6);
  EXPECT_DOUBLE_EQ(*metrics.arrival_rps, 1.5);
  EXPECT_DOUBLE_EQ(metrics.output_tokens_per_s, 9.0 / 5.0);
  // (2 + 1.5 + 3) s in the system over 5 s
  EXPECT_DOUBLE_EQ(metrics.mean_in_system, 1.3);
  EXPECT_LT(metrics.little_error, 1e-12);
}

TEST(Metrics, TimeToFirstTokenCountsFromTheIntendedTime) {
  const Served late = served(1.0, 7.0, 8.0, 8.0, 1);
  EXPECT_EQ(ttft_ms(late), 7000.0);
  EXPECT_EQ(e2e_ms(late), 7000.0);
  EXPECT_FALSE(tpot_ms(late));
  EXPECT_FALSE(keeps(late, {.ttft_ms = 6999.0}));
  EXPECT_TRUE(keeps(late, {.ttft_ms = 7000.0, .tpot_ms = 0.0}));
}

TEST(Metrics, WithoutASecondTokenThereIsNoTpot) {
  const std::vector<Served> single{served(0.0, 0.0, 1.0, 1.0, 1)};
  const auto metrics = measure(single, {});
  EXPECT_FALSE(metrics.tpot_ms);
  EXPECT_FALSE(metrics.arrival_rps) << "all arrive at 0";
  EXPECT_EQ(metrics.throughput_rps, 1.0);
  EXPECT_FALSE(metrics.ttft_ms.p50.low) << "one value has no interval";
}

TEST(Metrics, WithAnInfiniteSloAllKeepItAndWithNoneNone) {
  for (std::uint64_t seed = 0; seed < kRandomCases; ++seed) {
    const RandomCase random(seed);
    const auto run = serve(random.requests, random.options, [](const StepPlan& step) {
      return 0.01 * static_cast<double>(step.tokens());
    });
    const auto all = measure(run, {});
    EXPECT_EQ(all.attainment.value, 1.0) << "case " << seed;
    EXPECT_EQ(all.attainment.high, 1.0) << "case " << seed;
    EXPECT_EQ(all.goodput_rps, all.throughput_rps) << "case " << seed;
    EXPECT_EQ(measure(run, {.ttft_ms = 0.0}).attainment.value, 0.0) << "case " << seed;
  }
}

TEST(Metrics, GoodputIsNeverAboveThroughputNorThatAboveTheArrivalRate) {
  for (std::uint64_t seed = 0; seed < kRandomCases; ++seed) {
    const RandomCase random(seed);
    const double token_s = 0.002 * (1.0 + static_cast<double>(seed % 10));
    const auto metrics = measure(
        serve(random.requests, random.options,
              [&](const StepPlan& step) { return token_s * static_cast<double>(step.tokens()); }),
        {.ttft_ms = 500.0, .tpot_ms = 60.0});
    ASSERT_TRUE(metrics.arrival_rps);
    EXPECT_LE(metrics.goodput_rps, metrics.throughput_rps) << "case " << seed;
    EXPECT_LE(metrics.throughput_rps, *metrics.arrival_rps) << "case " << seed;
  }
}

TEST(Metrics, RecordsThatCannotBeAreRefused) {
  EXPECT_THROW(measure({}, {}), CheckError);
  for (const auto& bad : {served(-1.0, 0.0, 1.0, 2.0, 2), served(1.0, 0.5, 1.5, 2.0, 2),
                          served(0.0, 2.0, 1.0, 3.0, 2), served(0.0, 0.0, 2.0, 1.0, 2),
                          served(0.0, kNan, kNan, kNan, 2), served(0.0, 0.0, 1.0, kNan, 2),
                          served(0.0, 0.0, 1.0, kInfinity, 2), served(1.0, 1.0, 1.0, 1.0, 1)}) {
    EXPECT_THROW(measure(std::vector{bad}, {}), CheckError);
  }
  auto unsorted = three_requests();
  std::swap(unsorted[0], unsorted[2]);
  EXPECT_THROW(measure(unsorted, {}), CheckError);
  EXPECT_NO_THROW(measure(three_requests(), {}));
}

/// Of intervals from many runs: how many there are, how many hold the true value, and their width.
struct Coverage {
  int runs = 0;
  int stated = 0;
  int covering = 0;
  double width = 0.0;

  void add(const Estimate& estimate, double truth) {
    ++runs;
    if (estimate.low && estimate.high) {
      ++stated;
      covering += *estimate.low <= truth && truth <= *estimate.high ? 1 : 0;
      width += *estimate.high - *estimate.low;
    }
  }
  [[nodiscard]] double missing() const {
    return static_cast<double>(stated - covering) / static_cast<double>(runs);
  }
  [[nodiscard]] double mean_width() const { return width / stated; }
  [[nodiscard]] std::string text() const {
    return fmt::format("{} runs, {} intervals, {} covering, mean width {:.3g}", runs, stated,
                       covering, mean_width());
  }
};

/// What 1000 requests of M/D/1 say of the load's true values, taken from 2000 other such runs.
struct Simulation {
  Coverage attainment, p50, p90;

  explicit Simulation(double load) {
    constexpr std::int64_t kRequests = 1000;
    constexpr std::uint64_t kTruthRuns = 2000;
    constexpr std::uint64_t kRuns = 1000;
    std::vector<double> all;
    for (std::uint64_t run = 0; run < kTruthRuns; ++run) {
      for (const Served& one : serve_md1(load, kRequests, 1'000'000 + run)) {
        all.push_back(ttft_ms(one));
      }
    }
    std::ranges::sort(all);
    const double median = all[all.size() / 2];
    const double limit = all[all.size() * 9 / 10];
    for (std::uint64_t run = 0; run < kRuns; ++run) {
      const auto metrics = measure(serve_md1(load, kRequests, run), {.ttft_ms = limit});
      attainment.add(metrics.attainment, 0.9);
      p50.add(metrics.ttft_ms.p50, median);
      p90.add(metrics.ttft_ms.p90, limit);
    }
    testing::Test::RecordProperty("attainment", attainment.text());
    testing::Test::RecordProperty("p50", p50.text());
    testing::Test::RecordProperty("p90", p90.text());
  }
};

// With 1000 runs, the standard error of a share of 0.05 is 0.007.
TEST(Metrics, IntervalsAtAModerateLoadCoverAsManyRunsAsTheySay) {
  const Simulation at(0.6);
  EXPECT_EQ(at.attainment.stated, at.attainment.runs);
  EXPECT_LE(at.attainment.missing(), 0.06);
  EXPECT_LE(at.attainment.mean_width(), 0.13);
  EXPECT_EQ(at.p50.stated, at.p50.runs);
  EXPECT_LE(at.p50.missing(), 0.06);
  EXPECT_GE(at.p90.stated, at.p90.runs * 95 / 100);
  EXPECT_LE(at.p90.missing(), 0.06);
}

// Few busy periods fit into a run: about 90 % instead of 95 %. The effective sample size of the
// indicators alone covers 65 %, batch means of 5 to 20 batches 58 to 68 %.
TEST(Metrics, IntervalsAtAHighLoadSayLess) {
  const Simulation at(0.9);
  EXPECT_GE(at.attainment.stated, at.attainment.runs * 95 / 100);
  EXPECT_LE(at.attainment.missing(), 0.13);
  EXPECT_LE(at.attainment.mean_width(), 0.4);
  EXPECT_LE(at.p50.missing(), 0.08);
  EXPECT_LE(at.p90.missing(), 0.08);
}

}  // namespace
}  // namespace moevar::serving
