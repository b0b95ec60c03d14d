#include "serving/scheduler.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "serve.hpp"

namespace moevar::serving {
namespace {

constexpr auto kOneSecond = [](const StepPlan&) { return 1.0; };

workload::Request request(double arrival_s, std::int32_t input, std::int32_t output, int kind = 0) {
  return {.arrival_s = arrival_s, .input_tokens = input, .output_tokens = output, .kind = kind};
}

void expect_step(const StepPlan& step, const StepPlan& expected) {
  EXPECT_EQ(step.prefill_tokens, expected.prefill_tokens);
  EXPECT_EQ(step.decode_tokens, expected.decode_tokens);
  EXPECT_EQ(step.context_tokens, expected.context_tokens);
  EXPECT_EQ(step.running, expected.running);
  EXPECT_EQ(step.waiting, expected.waiting);
  EXPECT_EQ(step.kind, expected.kind);
}

// Requests A to E with a budget of 8 tokens and 3 running at most; every step takes a second. The
// budget cuts B's prompt and keeps C out of the first step; the limit of 3 keeps E out of the
// third.
TEST(Scheduler, AScheduleWorkedByHand) {
  Scheduler scheduler({request(0.0, 5, 3, 0), request(0.0, 6, 2, 1), request(0.0, 2, 1, 0),
                       request(1.5, 4, 1, 1), request(1.7, 1, 1, 0)},
                      {.token_budget = 8, .max_running = 3});
  // A 5, B 3 of 6
  expect_step(scheduler.plan(0.0), {.prefill_tokens = 8,
                                    .decode_tokens = 0,
                                    .context_tokens = 5 + 3,
                                    .running = 2,
                                    .waiting = 1,
                                    .kind = 0});
  scheduler.complete(1.0);
  // A decodes, B's other 3, C 2; of both kinds 3 tokens
  expect_step(scheduler.plan(1.0), {.prefill_tokens = 5,
                                    .decode_tokens = 1,
                                    .context_tokens = 6 + 6 + 2,
                                    .running = 3,
                                    .waiting = 0,
                                    .kind = 0});
  scheduler.complete(2.0);
  // A and B decode, D 4
  expect_step(scheduler.plan(2.0), {.prefill_tokens = 4,
                                    .decode_tokens = 2,
                                    .context_tokens = 7 + 7 + 4,
                                    .running = 3,
                                    .waiting = 1,
                                    .kind = 1});
  scheduler.complete(3.0);
  // E
  expect_step(scheduler.plan(3.0), {.prefill_tokens = 1,
                                    .decode_tokens = 0,
                                    .context_tokens = 1,
                                    .running = 1,
                                    .waiting = 0,
                                    .kind = 0});
  EXPECT_FALSE(scheduler.done());
  scheduler.complete(4.0);
  EXPECT_TRUE(scheduler.done());

  struct Times {
    double intended, started, first_token, finished;
  };
  constexpr std::array<Times, 5> kExpected{{{0.0, 0.0, 1.0, 3.0},
                                            {0.0, 0.0, 2.0, 3.0},
                                            {0.0, 1.0, 2.0, 2.0},
                                            {1.5, 2.0, 3.0, 3.0},
                                            {1.7, 3.0, 4.0, 4.0}}};
  for (std::size_t i = 0; i < kExpected.size(); ++i) {
    const Served& served = scheduler.served()[i];
    EXPECT_EQ(served.intended_s, kExpected[i].intended) << i;
    EXPECT_EQ(served.started_s, kExpected[i].started) << i;
    EXPECT_EQ(served.first_token_s, kExpected[i].first_token) << i;
    EXPECT_EQ(served.finished_s, kExpected[i].finished) << i;
  }
}

TEST(Scheduler, IdleUntilTheNextArrival) {
  Scheduler scheduler({request(2.0, 1, 2), request(9.0, 1, 1)}, {});
  EXPECT_TRUE(scheduler.idle(0.0));
  EXPECT_EQ(scheduler.next_arrival_s(), 2.0);
  EXPECT_EQ(scheduler.plan(0.0).tokens(), 0);
  scheduler.complete(0.5);
  EXPECT_FALSE(scheduler.idle(2.0));
  EXPECT_EQ(scheduler.plan(2.0).tokens(), 1);
  scheduler.complete(3.0);
  EXPECT_FALSE(scheduler.idle(3.0)) << "a request decodes";
  EXPECT_EQ(scheduler.next_arrival_s(), 9.0);
  EXPECT_EQ(scheduler.plan(3.0).decode_tokens, 1);
  scheduler.complete(4.0);
  EXPECT_TRUE(scheduler.idle(4.0));
  EXPECT_TRUE(std::isnan(scheduler.served()[1].finished_s));
  scheduler.plan(9.0);
  EXPECT_TRUE(std::isinf(scheduler.next_arrival_s()));
  scheduler.complete(10.0);
  EXPECT_TRUE(scheduler.done());
  EXPECT_TRUE(Scheduler({}, {}).done());
}

TEST(Scheduler, APromptLongerThanTheBudgetIsCutIntoChunks) {
  for (const std::int32_t input : {1, 7, 8, 9, 16, 17, 100}) {
    const auto served =
        serve({request(0.0, input, 3)}, {.token_budget = 8, .max_running = 2}, kOneSecond,
              [](const Scheduler&, const StepPlan& step, double, double) {
                EXPECT_LE(step.tokens(), 8);
              });
    EXPECT_EQ(served[0].first_token_s, std::ceil(input / 8.0)) << input;
    EXPECT_EQ(served[0].finished_s, std::ceil(input / 8.0) + 2.0) << input;
  }
}

// What every step of every random case must keep, seen from outside.
TEST(Scheduler, StepsKeepBudgetLimitAndCounts) {
  for (std::uint64_t seed = 0; seed < kRandomCases; ++seed) {
    const RandomCase random(seed);
    const auto count_in_step = [&](const Scheduler& scheduler, const StepPlan& step, double begin_s,
                                   double) {
      ASSERT_GT(step.tokens(), 0);
      ASSERT_LE(step.tokens(), random.options.token_budget);
      ASSERT_LE(step.running, random.options.max_running);
      int waiting = 0;
      int running = 0;
      for (const Served& served : scheduler.served()) {
        const bool arrived = served.intended_s <= begin_s;
        const bool started = !std::isnan(served.started_s);
        waiting += arrived && !started ? 1 : 0;
        running += started && std::isnan(served.finished_s) ? 1 : 0;
      }
      ASSERT_EQ(step.waiting, waiting);
      ASSERT_EQ(step.running, running);
      // nothing waits while there is room for it
      ASSERT_TRUE(step.waiting == 0 || step.running == random.options.max_running ||
                  step.tokens() == random.options.token_budget);
    };
    serve(random.requests, random.options, kOneSecond, count_in_step);
    ASSERT_FALSE(HasFatalFailure()) << "case " << seed;
  }
}

TEST(Scheduler, TokensAreConserved) {
  for (std::uint64_t seed = 0; seed < kRandomCases; ++seed) {
    const RandomCase random(seed);
    std::int64_t prefill = 0;
    std::int64_t decode = 0;
    const auto count = [&](const Scheduler&, const StepPlan& step, double, double) {
      prefill += step.prefill_tokens;
      decode += step.decode_tokens;
    };
    serve(random.requests, random.options, kOneSecond, count);
    std::int64_t inputs = 0;
    std::int64_t later_outputs = 0;
    for (const auto& one : random.requests) {
      inputs += one.input_tokens;
      later_outputs += one.output_tokens - 1;
    }
    EXPECT_EQ(prefill, inputs) << "case " << seed;
    EXPECT_EQ(decode, later_outputs) << "case " << seed;
  }
}

// Each decodes in every step once its prompt is done, and each prompt begins in order of arrival.
TEST(Scheduler, FirstComeFirstServedAndNoDecodeIsSkipped) {
  for (std::uint64_t seed = 0; seed < kRandomCases; ++seed) {
    const RandomCase random(seed);
    const auto served = serve(random.requests, random.options, kOneSecond);
    EXPECT_TRUE(std::ranges::is_sorted(served, {}, &Served::started_s)) << "case " << seed;
    EXPECT_TRUE(std::ranges::is_sorted(served, {}, &Served::first_token_s)) << "case " << seed;
    for (const Served& one : served) {
      EXPECT_GE(one.started_s, one.intended_s);
      EXPECT_NEAR(one.finished_s - one.first_token_s, one.output_tokens - 1, 1e-9);
      // a chunk in every step, of at least the budget less the others' decodes
      const double fewest =
          std::ceil(one.input_tokens / static_cast<double>(random.options.token_budget));
      const double most =
          std::ceil(one.input_tokens / static_cast<double>(random.options.token_budget -
                                                           random.options.max_running + 1));
      EXPECT_GE(one.first_token_s - one.started_s, fewest - 1e-9);
      EXPECT_LE(one.first_token_s - one.started_s, most + 1.0 + 1e-9);
    }
  }
}

// Durations and arrivals are fractions of powers of two, so that sums are exact.
TEST(Scheduler, AloneARequestsTimeToFirstTokenIsItsPrefill) {
  const Options options{.token_budget = 512, .max_running = 16};
  const auto duration_s = [](const StepPlan& step) {
    return 0x1p-10 * static_cast<double>(4 + step.tokens());
  };
  std::vector<workload::Request> requests;
  for (std::int32_t i = 0; i < 100; ++i) {
    requests.push_back(request(64.0 * i, 1 + 37 * i, 1 + i));
  }
  for (const Served& served : serve(requests, options, duration_s)) {
    double prefill_s = 0.0;
    for (std::int32_t left = served.input_tokens; left > 0; left -= 512) {
      prefill_s += duration_s({.prefill_tokens = std::min(left, 512)});
    }
    EXPECT_EQ(served.started_s, served.intended_s);
    EXPECT_EQ(served.first_token_s - served.intended_s, prefill_s);
    EXPECT_EQ(served.finished_s - served.first_token_s,
              (served.output_tokens - 1) * duration_s({.decode_tokens = 1}));
  }
}

TEST(Scheduler, PrefillAloneGivesOneTokenEach) {
  std::int64_t prefill = 0;
  const auto count = [&](const Scheduler&, const StepPlan& step, double, double) {
    EXPECT_EQ(step.decode_tokens, 0);
    prefill += step.prefill_tokens;
  };
  const auto served =
      serve({request(0.0, 20, 9), request(0.5, 5, 4)},
            {.token_budget = 8, .max_running = 4, .mode = Mode::prefill}, kOneSecond, count);
  EXPECT_EQ(prefill, 25);
  for (const Served& one : served) {
    EXPECT_EQ(one.output_tokens, 1);
    EXPECT_EQ(one.finished_s, one.first_token_s);
  }
  // 8 + 8 + 4 of the first, with the last of which the second's 4 fit and then 1
  EXPECT_EQ(served[0].finished_s, 3.0);
  EXPECT_EQ(served[1].started_s, 2.0);
  EXPECT_EQ(served[1].finished_s, 4.0);
}

TEST(Scheduler, DecodeAloneHasThePromptInTheCacheButForItsLastTokens) {
  Scheduler scheduler({request(0.0, 1000, 2), request(0.0, 10, 1)}, {.mode = Mode::decode});
  expect_step(scheduler.plan(0.0), {.prefill_tokens = kUncachedTokens + 10,
                                    .decode_tokens = 0,
                                    .context_tokens = 1000 + 10,
                                    .running = 2,
                                    .waiting = 0,
                                    .kind = 0});
  scheduler.complete(1.0);
  expect_step(scheduler.plan(1.0), {.prefill_tokens = 0,
                                    .decode_tokens = 1,
                                    .context_tokens = 1001,
                                    .running = 1,
                                    .waiting = 0,
                                    .kind = 0});
  scheduler.complete(2.0);
  EXPECT_TRUE(scheduler.done());
  EXPECT_EQ(scheduler.served()[0].input_tokens, 1000);
  EXPECT_EQ(scheduler.served()[0].output_tokens, 2);
}

TEST(Scheduler, UnusableOptionsAndRequestsAreRefused) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const Options& options :
       {Options{.token_budget = 0, .max_running = 1}, Options{.token_budget = 8, .max_running = 0},
        Options{.token_budget = -8, .max_running = -9},
        Options{.token_budget = 8, .max_running = 9}}) {
    EXPECT_THROW(Scheduler({request(0.0, 1, 1)}, options), InputError);
  }
  for (const auto& bad :
       {request(-1.0, 1, 1), request(kNan, 1, 1), request(kInfinity, 1, 1), request(0.0, 0, 1),
        request(0.0, 1, 0), request(0.0, 1, 1, -1), request(0.0, 1, 1, 2'000'000'000)}) {
    EXPECT_THROW(Scheduler({bad}, {}), InputError);
  }
  EXPECT_THROW(Scheduler({request(2.0, 1, 1), request(1.0, 1, 1)}, {}), InputError);
}

}  // namespace
}  // namespace moevar::serving
