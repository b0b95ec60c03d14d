#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "cases.hpp"
#include "placement/gem_search.hpp"

namespace moevar::placement {
namespace {

TEST(TileTimes, RoundUpToWholeTilesInAndBeyondTheTable) {
  const SpeedModels speeds{SpeedCurve({128, 1280}, {10, 190}), proportional(1)};
  const TileTimes times(speeds, 500);
  EXPECT_DOUBLE_EQ(times.time_us(0, 0), 0);
  EXPECT_DOUBLE_EQ(times.time_us(0, 1), 10);
  EXPECT_DOUBLE_EQ(times.time_us(0, 128), 10);
  EXPECT_DOUBLE_EQ(times.time_us(0, 129), 30);
  EXPECT_DOUBLE_EQ(times.time_us(0, 256.0 / 3 + 256.0 / 3 + 256.0 / 3), 30);
  EXPECT_DOUBLE_EQ(times.time_us(1, 1e6 + 1), 128 * std::ceil((1e6 + 1) / 128));
  EXPECT_DOUBLE_EQ(times.time_us(1, 1e12), 1e12);
  EXPECT_DOUBLE_EQ(times.tokens_within(0, 9), 0);
  EXPECT_DOUBLE_EQ(times.tokens_within(0, 10), 128);
  EXPECT_DOUBLE_EQ(times.tokens_within(0, 29), 128);
  EXPECT_EQ(times.tokens_within(0, 1e9), std::numeric_limits<double>::infinity());
}

/// Σ over steps of the slowest device's time at whole tiles, from scratch.
double tile_score(const Tensor<double, 3>& trace, const SpeedModels& speeds,
                  const std::vector<std::int32_t>& expert_of_slot) {
  const std::size_t width = expert_of_slot.size() / speeds.size();
  double sum = 0;
  for (std::size_t t = 0; t < trace.extent(0); ++t) {
    double slowest = 0;
    for (std::size_t d = 0; d < speeds.size(); ++d) {
      double tokens = 0;
      for (std::size_t i = 0; i < width; ++i) {
        const auto expert = expert_of_slot[d * width + i];
        tokens +=
            trace(t, 0, expert) / static_cast<double>(std::ranges::count(expert_of_slot, expert));
      }
      slowest = std::max(slowest, speeds[d].time_us(128 * std::ceil(tokens / 128 - 1e-9)));
    }
    sum += slowest;
  }
  return sum;
}

Trace bursts(std::size_t experts, std::uint64_t seed) {
  std::vector<std::vector<double>> steps;
  for (std::uint64_t t = 0; t < 5; ++t) {
    auto loads = random_loads(1, experts, 1000 * seed + t);
    for (double& load : loads.flat()) {
      load = std::floor(20 * load);
    }
    steps.emplace_back(loads.flat().begin(), loads.flat().end());
  }
  return Trace(steps);
}

TEST(GemLike, KeepsExpertsThatBurstTogetherApart) {
  const Trace trace({{900, 900, 100, 100}, {100, 100, 900, 900}});
  const auto speeds = equal_speeds(2);
  Problem problem{trace.mean, speeds, 2, 2, 0};
  problem.trace = &trace.steps;
  const auto p = solve(find_policy("gem_like"), problem);
  EXPECT_NE(device_of(p, 0, 0), device_of(p, 0, 1));
  EXPECT_NE(device_of(p, 0, 2), device_of(p, 0, 3));
}

TEST(GemLike, FindsTheBestOfAllPlacementsOfSmallCases) {
  int optimal = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto trace = bursts(6, seed);
    const SpeedModels speeds{proportional(1), proportional(1.1), proportional(1.3)};
    Problem problem{trace.mean, speeds, 3, 2, seed};
    problem.trace = &trace.steps;
    const double found =
        tile_score(trace.steps, speeds, row(solve(find_policy("gem_like"), problem), 0));
    Slots order(6);
    std::iota(order.begin(), order.end(), 0);
    double best = 1e300;
    do {
      best = std::min(best, tile_score(trace.steps, speeds, order));
    } while (std::ranges::next_permutation(order).found);
    EXPECT_GE(found, best * (1 - 1e-12));
    EXPECT_LE(found, best * 1.05);
    optimal += found <= best * (1 + 1e-12) ? 1 : 0;
  }
  EXPECT_GE(optimal, 17);
}

/// What improve() leaves: no swap of the device that is straggler in most steps lowers the score.
TEST(GemLike, StopsWhereNoSwapOfTheStragglerHelps) {
  int checks = 0;
  for (const int slots_per_device : {4, 5}) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      const auto trace = bursts(16, seed);
      const SpeedModels speeds{proportional(1), proportional(1.02), proportional(1.05),
                               proportional(1.4)};
      Problem problem{trace.mean, speeds, 4, slots_per_device, 0};
      problem.trace = &trace.steps;
      const LayerProblem layer(problem, 0);
      const auto copies = copies_for(layer.loads(), 4, slots_per_device);
      GemSearch search(layer, copies);
      search.start_greedily(copies);
      const double start = search.score();
      EXPECT_NEAR(start,
                  tile_score(trace.steps, speeds, {search.slots().begin(), search.slots().end()}),
                  1e-9 * start);
      search.improve();
      const Slots slots(search.slots().begin(), search.slots().end());
      EXPECT_LE(search.score(), start);
      EXPECT_NEAR(search.score(), tile_score(trace.steps, speeds, slots), 1e-9 * start);

      const auto width = static_cast<std::size_t>(slots_per_device);
      std::vector<int> slowest_in(4, 0);
      for (std::size_t t = 0; t < 5; ++t) {
        std::vector<double> time(4, 0.0);
        for (std::size_t s = 0; s < slots.size(); ++s) {
          time[s / width] += trace.steps(t, 0, slots[s]) /
                             static_cast<double>(std::ranges::count(slots, slots[s]));
        }
        for (std::size_t d = 0; d < 4; ++d) {
          time[d] = speeds[d].time_us(128 * std::ceil(time[d] / 128 - 1e-9));
        }
        ++slowest_in[static_cast<std::size_t>(std::ranges::max_element(time) - time.begin())];
      }
      const auto straggler =
          static_cast<std::size_t>(std::ranges::max_element(slowest_in) - slowest_in.begin());
      for (std::size_t a = straggler * width; a < (straggler + 1) * width; ++a) {
        for (std::size_t b = 0; b < slots.size(); ++b) {
          auto swapped = slots;
          std::swap(swapped[a], swapped[b]);
          const auto doubled = [&](std::size_t slot) {
            const auto first = swapped.begin() + static_cast<std::ptrdiff_t>(slot / width * width);
            return std::count(first, first + slots_per_device, swapped[slot]) > 1;
          };
          if (!doubled(a) && !doubled(b)) {
            EXPECT_GE(tile_score(trace.steps, speeds, swapped), search.score() * (1 - 1e-9));
            ++checks;
          }
        }
      }
    }
  }
  EXPECT_GT(checks, 1000);
}

TEST(GemLike, AsManySwapsAreLookedAtAsAreAllowed) {
  const auto trace = bursts(16, 1);
  const auto speeds = equal_speeds(4);
  Problem problem{trace.mean, speeds, 4, 4, 0};
  problem.trace = &trace.steps;
  const LayerProblem layer(problem, 0);
  const auto copies = copies_for(layer.loads(), 4, 4);
  Slots start(16);
  std::iota(start.begin(), start.end(), 0);
  GemSearch search(layer, copies);
  // a round looks at the straggler's 4 slots with 12 others
  for (const std::int64_t rounds : {0, 1, 2}) {
    search.start_from(start);
    search.improve(48 * rounds + 47);
    const auto slots = search.slots();
    int changed = 0;
    for (std::size_t s = 0; s < start.size(); ++s) {
      changed += slots[s] != start[s] ? 1 : 0;
    }
    EXPECT_LE(changed, 2 * rounds);
    EXPECT_EQ(changed == 0, rounds == 0);
  }
}

TEST(GemLike, LargeFleetsGetNoRestarts) {
  std::vector<std::vector<double>> steps;
  for (std::uint64_t t = 0; t < 16; ++t) {
    const auto loads = random_loads(1, 2048, t);
    steps.emplace_back(loads.flat().begin(), loads.flat().end());
  }
  const Trace trace(steps);
  const auto speeds = equal_speeds(1024);
  const auto solved = [&](std::uint64_t seed) {
    Problem problem{trace.mean, speeds, 1024, 2, seed};
    problem.trace = &trace.steps;
    return solve(find_policy("gem_like"), problem);
  };
  EXPECT_EQ(solved(1).expert_of_slot, solved(2).expert_of_slot);
}

TEST(GemLike, RestartsAreDrawnByTheSeedAndOnlyThey) {
  const auto trace = bursts(32, 3);
  const auto speeds = equal_speeds(4);
  Problem problem{trace.mean, speeds, 4, 8, 1};
  problem.trace = &trace.steps;
  const auto first = solve(find_policy("gem_like"), problem);
  EXPECT_EQ(first.expert_of_slot, solve(find_policy("gem_like"), problem).expert_of_slot);
  const LayerProblem layer(problem, 0);
  const auto copies = copies_for(layer.loads(), 4, 8);
  GemSearch greedy(layer, copies);
  greedy.start_greedily(copies);
  greedy.improve();
  EXPECT_LE(tile_score(trace.steps, speeds, row(first, 0)), greedy.score() * (1 + 1e-12));
}

}  // namespace
}  // namespace moevar::placement
