#pragma once

#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/random.hpp"
#include "serving/scheduler.hpp"
#include "workload/requests.hpp"

namespace moevar::serving {

/// Serves all requests in virtual time. `duration_s(step)`: of a planned step; `watch(scheduler,
/// step, begin, end)` is called before the step is complete.
template <class Duration, class Watch>
std::vector<Served> serve(std::vector<workload::Request> requests, const Options& options,
                          const Duration& duration_s, const Watch& watch) {
  Scheduler scheduler(std::move(requests), options);
  double now_s = 0.0;
  while (!scheduler.done()) {
    if (scheduler.idle(now_s)) {
      now_s = scheduler.next_arrival_s();
    }
    const StepPlan step = scheduler.plan(now_s);
    if (step.tokens() == 0) {
      throw std::logic_error("a step without tokens, and time would stand still");
    }
    const double end_s = now_s + duration_s(step);
    watch(scheduler, step, now_s, end_s);
    now_s = end_s;
    scheduler.complete(now_s);
  }
  return scheduler.served();
}

template <class Duration>
std::vector<Served> serve(std::vector<workload::Request> requests, const Options& options,
                          const Duration& duration_s) {
  return serve(std::move(requests), options, duration_s,
               [](const Scheduler&, const StepPlan&, double, double) {});
}

/// M/D/1: a server that takes one request at a time, a second for each, `load` requests a second.
inline std::vector<Served> serve_md1(double load, std::int64_t count, std::uint64_t seed) {
  const auto requests = workload::make_requests(
      {.count = count, .rate_rps = load, .lengths = {workload::Lengths::fixed}}, seed);
  return serve(requests, {.token_budget = 1, .max_running = 1},
               [](const StepPlan&) { return 1.0; });
}

/// Requests and options drawn at random, with prompts above and below the token budget.
struct RandomCase {
  std::vector<workload::Request> requests;
  Options options;

  explicit RandomCase(std::uint64_t seed) {
    const RandomKey key(seed);
    options.max_running = 1 + static_cast<int>(key[0].below(12));
    options.token_budget = options.max_running + static_cast<std::int64_t>(key[1].below(60));
    constexpr std::size_t kRequests = 200;
    const double mean_gap_s = 20.0 * key[2].uniform();
    double arrival_s = 0.0;
    requests.reserve(kRequests);
    for (std::size_t i = 0; i < kRequests; ++i) {
      const RandomKey mine = key[3][i];
      arrival_s += static_cast<double>(mine[0].below(2)) * mean_gap_s * mine[1].uniform();
      requests.push_back({.arrival_s = arrival_s,
                          .input_tokens = 1 + static_cast<std::int32_t>(mine[2].below(100)),
                          .output_tokens = 1 + static_cast<std::int32_t>(mine[3].below(12)),
                          .kind = static_cast<int>(mine[4].below(3))});
    }
  }
};

inline constexpr std::uint64_t kRandomCases = 200;

}  // namespace moevar::serving
