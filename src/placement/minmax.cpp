#include <algorithm>
#include <vector>

#include "placement/greedy.hpp"
#include "placement/mean_search.hpp"
#include "placement/policies.hpp"
#include "placement/replicas.hpp"
#include "placement/step_times.hpp"
#include "placement/trace_search.hpp"

namespace moevar::placement {

namespace {

/// Exchanges that the search on a trace looks at in a layer.
constexpr std::size_t kSearchBudget = 250'000;

void place_by_mean(const LayerProblem& problem, LayerSlots slots) {
  MeanSearch search(problem.loads(), problem.speeds(), problem.slots_per_device());
  if (problem.options().even_shares) {
    search.place_evenly();
  } else {
    search.place();
  }
  search.write(slots);
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
  search.place_evenly();
  search.write(slots);
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

double total_us(const LayerProblem& problem, LayerSlots slots) {
  return StepTimes(problem, slots).total_us();
}

}  // namespace

void assign_minmax(const LayerProblem& problem, LayerSlots slots) {
  const auto& options = problem.options();
  const bool budgeted = options.receive_budget >= 0;
  if (budgeted) {
    stay(problem, slots);
  } else {
    place_by_mean(problem, slots);
  }
  if (options.trace == nullptr && !budgeted) {
    return;
  }
  std::vector<std::int32_t> experts(slots.expert.size());
  std::vector<double> shares(slots.share.size());
  if (!budgeted && problem.slots() > problem.experts()) {
    const LayerSlots other{experts, shares};
    place_by_peaks(problem, other);
    if (total_us(problem, other) < total_us(problem, slots)) {
      std::ranges::copy(other.expert, slots.expert.begin());
      std::ranges::copy(other.share, slots.share.begin());
    }
  }
  StepTimes times(problem, slots);
  TraceSearch(problem, times).run(kSearchBudget);
}

}  // namespace moevar::placement
