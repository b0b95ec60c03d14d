#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "workload/requests.hpp"

namespace moevar::serving {

/// What of a request is served. mixed: all of it. prefill: one output token of each. decode: the
/// prompt is in the prefix cache but for its last kUncachedTokens (the latter two as ViBE measures,
/// arXiv 2606.00735).
enum class Mode { mixed, prefill, decode };

inline constexpr std::int32_t kUncachedTokens = 16;

struct Options {
  std::int64_t token_budget = 8192;  ///< of a step; vLLM's max_num_batched_tokens
  int max_running = 256;             ///< requests at a time; vLLM's max_num_seqs
  Mode mode = Mode::mixed;
};

/// What one forward pass computes.
struct StepPlan {
  std::int64_t prefill_tokens = 0;
  std::int64_t decode_tokens = 0;
  std::int64_t context_tokens = 0;  ///< Σ over its requests of the KV entries after the step
  int running = 0;                  ///< requests in the step, each with a token or more
  int waiting = 0;                  ///< requests that have arrived and have not started
  int kind = 0;                     ///< workload::Request::kind of most tokens; the lower of equals

  [[nodiscard]] std::int64_t tokens() const noexcept { return prefill_tokens + decode_tokens; }
};

/// What became of one request. Times are NaN until they are reached.
struct Served {
  double intended_s = 0.0;                                      ///< when it arrived
  double started_s = std::numeric_limits<double>::quiet_NaN();  ///< its first step began
  double first_token_s = std::numeric_limits<double>::quiet_NaN();
  double finished_s = std::numeric_limits<double>::quiet_NaN();  ///< its last token
  std::int32_t input_tokens = 0;
  std::int32_t output_tokens = 0;  ///< generated: 1 under Mode::prefill
  int kind = 0;
};

/// Continuous batching with chunked prefill as vLLM's V1 scheduler does it, without a limit of KV
/// memory: a step takes first the running requests in the order in which they started (one token
/// each where the prompt is done, else as much of the prompt as the budget leaves), then waiting
/// ones in order of arrival while budget and `max_running` allow. A prompt longer than the budget
/// is cut into chunks; the step with a prompt's last chunk yields the first output token.
///
/// A state machine without a clock: the caller says what time it is, virtual or real. Open loop: a
/// request's intended time is its arrival, however late the loop gets to it. plan() and complete()
/// take turns, allocate nothing, and cost O(running requests).
///
///     while (!scheduler.done()) {
///       if (scheduler.idle(now)) now = scheduler.next_arrival_s();
///       const StepPlan step = scheduler.plan(now);
///       now += duration of the step;
///       scheduler.complete(now);
///     }
class Scheduler {
 public:
  /// `requests`: in order of arrival. Throws InputError for requests out of order or without
  /// tokens, and for options below 1 or a token budget below max_running (which vLLM refuses too:
  /// running requests would starve each other).
  Scheduler(std::vector<workload::Request> requests, const Options& options);

  [[nodiscard]] bool done() const noexcept { return finished_ == requests_.size(); }
  /// Nothing runs and nothing has arrived by `now_s`.
  [[nodiscard]] bool idle(double now_s) const noexcept {
    return running_.empty() && next_arrival_s() > now_s;
  }
  /// Of the first request that has not started; infinite where there is none.
  [[nodiscard]] double next_arrival_s() const noexcept {
    return started_ == requests_.size() ? std::numeric_limits<double>::infinity()
                                        : requests_[started_].arrival_s;
  }

  /// The next step, which begins now. Has tokens unless idle(now_s).
  StepPlan plan(double now_s);
  /// The planned step is over.
  void complete(double now_s);

  /// One for each request, in order of arrival; all times are there when done().
  [[nodiscard]] const std::vector<Served>& served() const noexcept { return served_; }

 private:
  struct Running {
    std::size_t request = 0;
    std::int64_t context = 0;       ///< tokens in the KV cache
    std::int32_t prompt_left = 0;   ///< tokens of the prompt still to compute
    std::int32_t outputs_left = 0;  ///< tokens still to generate
    std::int32_t step_tokens = 0;   ///< of the planned step
  };

  /// Gives a running request what it gets of the step's budget.
  void take(Running& running, std::int64_t& budget, StepPlan& step);
  [[nodiscard]] Running admit(std::size_t request) const;
  /// A token of a running request came out of the step that ended now.
  void generate(Running& running, double now_s);

  std::vector<workload::Request> requests_;
  Options options_;
  std::vector<Served> served_;
  std::vector<Running> running_;           ///< in the order in which they started
  std::vector<std::int64_t> kind_tokens_;  ///< of the planned step, by kind
  std::size_t arrived_ = 0;                ///< requests that have arrived by the last plan()
  std::size_t started_ = 0;
  std::size_t finished_ = 0;
};

}  // namespace moevar::serving
