#include <algorithm>
#include <numeric>
#include <vector>

#include "base/random.hpp"
#include "placement/gem_search.hpp"
#include "placement/policies.hpp"
#include "placement/replicas.hpp"

namespace moevar::placement {

namespace {

// GEM's text was not to be had: these are the reconstruction's (policies.hpp).

/// Seeded random starts beside the greedy one. GEM restarts; how often is unknown.
constexpr std::uint64_t kRestarts = 8;
/// Slots × devices × steps up to which it restarts: beyond, the greedy start alone takes longer
/// than a solve may. 64 devices × 320 slots have it at 16 steps 51 times.
constexpr std::int64_t kMostWithRestarts = std::int64_t{1} << 24U;
/// An expert is consistent when active in at least this part of the steps, else temporal. GEM
/// observes 85 % and 17 % for the two kinds; the limit between them is unknown.
constexpr double kConsistent = 0.5;

/// Consistent experts' copies by falling load, then temporal ones' likewise.
void sort_by_class(const LayerProblem& problem, std::vector<Copy>& copies) {
  std::vector<int> active(static_cast<std::size_t>(problem.experts()), 0);
  for (int t = 0; t < problem.steps(); ++t) {
    const auto loads = problem.step(t);
    for (std::size_t e = 0; e < loads.size(); ++e) {
      active[e] += loads[e] > 0.0 ? 1 : 0;
    }
  }
  // clang-tidy 14 cannot read the ranges form
  std::stable_partition(copies.begin(), copies.end(), [&](const Copy& copy) {
    return active[static_cast<std::size_t>(copy.expert)] >= kConsistent * problem.steps();
  });
}

/// The copies in an order drawn by the seed, replicas apart.
std::vector<std::int32_t> random_start(const LayerProblem& problem, std::vector<Copy> copies,
                                       std::uint64_t restart) {
  const auto draws =
      random_stream(problem.options().seed,
                    Stream::restart)[static_cast<std::uint64_t>(problem.layer())][restart];
  for (std::size_t i = copies.size(); i > 1; --i) {
    std::swap(copies[i - 1], copies[draws[i].below(i)]);
  }
  std::vector<std::int32_t> expert_of_slot;
  std::vector<double> load_of_slot;
  for (const auto& copy : copies) {
    expert_of_slot.push_back(copy.expert);
    load_of_slot.push_back(copy.load);
  }
  if (problem.slots() > problem.experts()) {
    separate_replicas(problem.slots_per_device(), expert_of_slot, load_of_slot);
  }
  return expert_of_slot;
}

}  // namespace

void assign_gem_like(const LayerProblem& problem, LayerSlots slots) {
  auto copies = copies_for(problem.loads(), problem.devices(), problem.slots_per_device());
  GemSearch search(problem, copies);
  auto in_order = copies;
  sort_by_class(problem, in_order);
  search.start_greedily(in_order);
  search.improve();
  double best = search.score();
  std::ranges::copy(search.slots(), slots.expert.begin());
  const auto work = std::int64_t{problem.slots()} * problem.devices() * problem.steps();
  const auto restarts = work <= kMostWithRestarts ? kRestarts : 0;
  for (std::uint64_t restart = 0; restart < restarts; ++restart) {
    search.start_from(random_start(problem, copies, restart));
    search.improve();
    if (search.score() < best) {
      best = search.score();
      std::ranges::copy(search.slots(), slots.expert.begin());
    }
  }
}

}  // namespace moevar::placement
