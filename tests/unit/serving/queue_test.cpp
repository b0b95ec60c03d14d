// The scheduler and its metrics where queueing theory knows the answer.

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "serve.hpp"
#include "serving/metrics.hpp"
#include "serving/rate_search.hpp"

namespace moevar::serving {
namespace {

// Mean wait of M/D/1 = load / (2 (1 - load)) services (Pollaczek and Khinchine). Waits are
// correlated over about 1 / (1 - load)^2 requests. At load 0.9, 12 million requests in 40 runs,
// whose first twentieth is left out, hold the standard error at 0.45 %; below, a quarter of them
// do.
TEST(Queue, MeanWaitOfMd1) {
  constexpr std::size_t kRequests = 300'000;
  for (const double load : {0.3, 0.6, 0.9}) {
    const double expected_s = load / (2.0 * (1.0 - load));
    std::vector<double> relative(load < 0.9 ? 10 : 40);
    for (std::size_t run = 0; run < relative.size(); ++run) {
      const auto served = serve_md1(load, kRequests, run);
      double sum_s = 0.0;
      constexpr std::size_t kFirst = kRequests / 20;
      for (std::size_t i = kFirst; i < kRequests; ++i) {
        sum_s += served[i].started_s - served[i].intended_s;
      }
      relative[run] = sum_s / static_cast<double>(kRequests - kFirst) / expected_s - 1.0;
    }
    const auto runs = static_cast<double>(relative.size());
    const double mean = std::accumulate(relative.begin(), relative.end(), 0.0) / runs;
    double squares = 0.0;
    for (const double value : relative) {
      squares += (value - mean) * (value - mean);
    }
    const double standard_error = std::sqrt(squares / (runs - 1.0) / runs);
    EXPECT_LT(3.0 * standard_error, 0.02) << "load " << load;
    EXPECT_NEAR(mean, 0.0, 0.02) << "load " << load;
    RecordProperty("load_" + std::to_string(load),
                   std::to_string(mean) + " +- " + std::to_string(standard_error));
  }
}

// The number in the system, integrated here while the requests are served, against measure()'s two:
// counted from the record's events, and arrival rate times mean time (Little's law).
TEST(Queue, LittlesLawOnEveryRun) {
  for (std::uint64_t seed = 0; seed < kRandomCases; ++seed) {
    const RandomCase random(seed);
    double request_seconds = 0.0;
    const auto integrate = [&](const Scheduler&, const StepPlan& step, double begin_s,
                               double end_s) {
      request_seconds += (step.running + step.waiting) * (end_s - begin_s);
      for (const auto& request : random.requests) {
        const bool arrives = request.arrival_s > begin_s && request.arrival_s <= end_s;
        request_seconds += arrives ? end_s - request.arrival_s : 0.0;
      }
    };
    const auto duration_s = [](const StepPlan& step) {
      return 0.3 + 0.01 * static_cast<double>(step.tokens());
    };
    const auto metrics = measure(serve(random.requests, random.options, duration_s, integrate), {});
    EXPECT_LT(metrics.little_error, 1e-9) << "case " << seed;
    EXPECT_NEAR(request_seconds / metrics.duration_s / metrics.mean_in_system, 1.0, 1e-9)
        << "case " << seed;
  }
}

// At loads near saturation too, over long runs.
TEST(Queue, LittlesLawOfALongQueue) {
  for (const double load : {0.5, 0.99, 1.5}) {
    EXPECT_LT(measure(serve_md1(load, 10'000, 1), {}).little_error, 1e-9) << load;
  }
}

// Of the shares of M/D/1 within a limit below two services, Erlang (1909) gives a closed form:
// P(wait <= t) = (1 - load) e^(load t) for t < 1. At t = 0.5 it is 0.9 at a load of 0.18946.
TEST(Queue, TheRateThatKeepsAnSlo) {
  double low = 0.0;
  double high = 1.0;
  for (int i = 0; i < 60; ++i) {
    const double load = std::midpoint(low, high);
    ((1.0 - load) * std::exp(0.5 * load) > 0.9 ? low : high) = load;
  }
  const auto found = find_rate(
      [](double rate) { return attainment(serve_md1(rate, 400'000, 1), {.ttft_ms = 1500.0}); }, 0.9,
      {0.4, 0.8});
  ASSERT_TRUE(found.rate_rps);
  // three standard errors of a share of 400,000 are 0.0014, and the share falls by 0.65 per load
  EXPECT_NEAR(*found.rate_rps, low, 0.0014 / 0.65);
}

}  // namespace
}  // namespace moevar::serving
