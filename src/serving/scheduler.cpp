#include "serving/scheduler.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::serving {

namespace {

constexpr int kMostKinds = 1024;

void check(const Options& options) {
  if (options.max_running < 1 || options.token_budget < options.max_running) {
    throw InputError(fmt::format(
        "scheduler: max_running is {} and token_budget {}; expected 1 or more, and a budget that "
        "holds a token of each",
        options.max_running, options.token_budget));
  }
}

void check(std::span<const workload::Request> requests) {
  double before_s = 0.0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto& request = requests[i];
    if (!(request.arrival_s >= before_s) || !std::isfinite(request.arrival_s)) {
      throw InputError(fmt::format("request {}: arrives at {} s; expected a time from {} s on", i,
                                   request.arrival_s, before_s));
    }
    if (request.input_tokens < 1 || request.output_tokens < 1 || request.kind < 0 ||
        request.kind >= kMostKinds) {
      throw InputError(fmt::format(
          "request {}: {} tokens in, {} out, kind {}; expected 1 or more tokens and a "
          "kind from 0 to {}",
          i, request.input_tokens, request.output_tokens, request.kind, kMostKinds - 1));
    }
    before_s = request.arrival_s;
  }
}

}  // namespace

Scheduler::Scheduler(std::vector<workload::Request> requests, const Options& options)
    : requests_(std::move(requests)), options_(options) {
  check(options_);
  check(requests_);
  served_.reserve(requests_.size());
  int kinds = 1;
  for (const auto& request : requests_) {
    Served& served = served_.emplace_back();
    served.intended_s = request.arrival_s;
    served.input_tokens = request.input_tokens;
    served.output_tokens = options_.mode == Mode::prefill ? 1 : request.output_tokens;
    served.kind = request.kind;
    kinds = std::max(kinds, request.kind + 1);
  }
  kind_tokens_.resize(static_cast<std::size_t>(kinds));
  running_.reserve(std::min(requests_.size(), static_cast<std::size_t>(options_.max_running)));
}

StepPlan Scheduler::plan(double now_s) {
  while (arrived_ < requests_.size() && requests_[arrived_].arrival_s <= now_s) {
    ++arrived_;
  }
  std::ranges::fill(kind_tokens_, 0);
  StepPlan step;
  std::int64_t budget = options_.token_budget;
  // Each gets a token at least: only the last one's prompt can be unfinished, for nothing starts
  // behind a prompt that the budget cut.
  for (Running& running : running_) {
    take(running, budget, step);
  }
  const auto most = static_cast<std::size_t>(options_.max_running);
  while (started_ < arrived_ && budget > 0 && running_.size() < most) {
    served_[started_].started_s = now_s;
    running_.push_back(admit(started_));
    take(running_.back(), budget, step);
    ++started_;
  }
  step.running = static_cast<int>(running_.size());
  step.waiting = static_cast<int>(arrived_ - started_);
  step.kind = static_cast<int>(std::ranges::max_element(kind_tokens_) - kind_tokens_.begin());
  return step;
}

Scheduler::Running Scheduler::admit(std::size_t request) const {
  const std::int32_t input = served_[request].input_tokens;
  const std::int32_t uncached =
      options_.mode == Mode::decode ? std::min(input, kUncachedTokens) : input;
  return {.request = request,
          .context = input - uncached,
          .prompt_left = uncached,
          .outputs_left = served_[request].output_tokens,
          .step_tokens = 0};
}

void Scheduler::take(Running& running, std::int64_t& budget, StepPlan& step) {
  const bool prefills = running.prompt_left > 0;
  const auto tokens = std::min<std::int64_t>(prefills ? running.prompt_left : 1, budget);
  running.step_tokens = static_cast<std::int32_t>(tokens);
  budget -= tokens;
  (prefills ? step.prefill_tokens : step.decode_tokens) += tokens;
  step.context_tokens += running.context + tokens;
  kind_tokens_[static_cast<std::size_t>(served_[running.request].kind)] += tokens;
}

void Scheduler::complete(double now_s) {
  for (Running& running : running_) {
    running.context += running.step_tokens;
    running.prompt_left = std::max(0, running.prompt_left - running.step_tokens);
    if (running.prompt_left == 0) {
      generate(running, now_s);
    }
  }
  std::erase_if(running_, [](const Running& running) { return running.outputs_left == 0; });
}

void Scheduler::generate(Running& running, double now_s) {
  Served& served = served_[running.request];
  if (running.outputs_left == served.output_tokens) {
    served.first_token_s = now_s;
  }
  if (--running.outputs_left == 0) {
    served.finished_s = now_s;
    ++finished_;
  }
}

}  // namespace moevar::serving
