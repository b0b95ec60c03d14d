#include <algorithm>
#include <optional>
#include <vector>

#include "placement/mean_search.hpp"
#include "placement/policies.hpp"
#include "placement/replicas.hpp"
#include "placement/step_times.hpp"
#include "placement/trace_search.hpp"

namespace moevar::placement {

namespace {

/// Exchanges that the search on a trace looks at in a layer.
constexpr std::size_t kSearchBudget = 150'000;

void place_by_mean(const LayerProblem& problem, LayerSlots slots) {
  MeanSearch search(problem.loads(), problem.speeds(), problem.slots_per_device());
  if (problem.options().even_shares) {
    search.place_evenly();
    search.write_evenly(slots);
  } else {
    search.place();
    search.write(slots);
  }
}

/// Replicas by the experts' peaks, for the worst steps decide; then by shortfall, as vibe does.
void place_by_peaks(const LayerProblem& problem, LayerSlots slots) {
  std::vector<double> peaks(problem.loads().size(), 0.0);
  for (int step = 0; step < problem.steps(); ++step) {
    const auto loads = problem.step(step);
    std::ranges::transform(peaks, loads, peaks.begin(),
                           [](double a, double b) { return std::max(a, b); });
  }
  MeanSearch search(peaks, problem.speeds(), problem.slots_per_device());
  constexpr double kFirstGuess = 2e-5;  // the search on the trace goes on from there
  search.place_evenly(kFirstGuess);
  search.write_evenly(slots);
}

/// The present placement of the layer, in its slots.
void stay(const LayerProblem& problem, LayerSlots slots) {
  const auto& from = *problem.options().from;
  std::ranges::copy(from.expert_of_slot.row(problem.layer()), slots.expert.begin());
  std::ranges::copy(from.share_of_slot.row(problem.layer()), slots.share.begin());
  if (problem.options().even_shares) {
    share_evenly(slots.expert, problem.experts(), slots.share);
  }
}

/// Where the old placement is kept as far as the budget asks.
void place_from(const LayerProblem& problem, const ReceiveBudget& budget, LayerSlots slots) {
  MeanSearch search(problem.loads(), problem.speeds(), problem.slots_per_device());
  search.improve(problem.options().from->expert_of_slot.row(problem.layer()), budget,
                 problem.options().even_shares);
  if (problem.options().even_shares) {
    search.write_evenly(slots);
  } else {
    search.write(slots);
  }
}

/// Takes another placement of the layer where it is faster.
void take_better(const LayerProblem& problem, LayerSlots slots,
                 void (*place)(const LayerProblem&, LayerSlots)) {
  std::vector<std::int32_t> experts(slots.expert.size());
  std::vector<double> shares(slots.share.size());
  const LayerSlots other{experts, shares};
  place(problem, other);
  if (StepTimes(problem, other).total_us() < StepTimes(problem, slots).total_us()) {
    std::ranges::copy(experts, slots.expert.begin());
    std::ranges::copy(shares, slots.share.begin());
  }
}

}  // namespace

void assign_minmax(const LayerProblem& problem, LayerSlots slots) {
  const auto& options = problem.options();
  std::optional<ReceiveBudget> budget;
  if (options.receive_budget >= 0) {
    budget.emplace(options.from->expert_of_slot.row(problem.layer()), problem.slots_per_device(),
                   problem.experts(), options.receive_budget);
    place_from(problem, *budget, slots);
    take_better(problem, slots, stay);
  } else {
    place_by_mean(problem, slots);
  }
  if (options.trace == nullptr) {
    return;
  }
  if (!budget && problem.slots() > problem.experts()) {
    take_better(problem, slots, place_by_peaks);
  }
  StepTimes times(problem, slots);
  TraceSearch(problem, times, budget ? &*budget : nullptr).run(kSearchBudget);
}

}  // namespace moevar::placement
