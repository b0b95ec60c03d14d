// Tests of the idea itself: that knowing steps and speeds pays, and that it is the knowing that
// pays. Bursty synthetic routing; every policy plans with 16 steps and is judged on later ones.

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "placement/placement.hpp"
#include "workload/routing.hpp"

namespace moevar::placement {
namespace {

constexpr int kLayers = 6;
constexpr int kExperts = 256;
constexpr int kSteps = 16;
constexpr int kUnseen = 96;

Tensor<double, 3> steps_of(const workload::Routing& routing, int first, int stride, int count,
                           int devices) {
  Tensor<double, 3> steps({static_cast<std::size_t>(count), kLayers, kExperts});
  std::vector<std::uint32_t> loads(steps.row(0).size());
  for (int i = 0; i < count; ++i) {
    routing.sample(first + i * stride, std::int64_t{4096} * devices, loads);
    std::ranges::copy(loads, steps.row(i).begin());
  }
  return steps;
}

/// GPUs that differ by about 3 % (standard deviation), one of them 12 % slow.
SpeedModels unlike(int devices) {
  SpeedModels speeds;
  for (int d = 0; d < devices; ++d) {
    const double time =
        d == devices / 3 ? 1.12 : 1.0 + 0.03 * RandomKey(5)[static_cast<std::uint64_t>(d)].normal();
    speeds.push_back(SpeedCurve({1.0}, {time}));
  }
  return speeds;
}

/// What policies make of loads they have not seen: mean layer time, µs.
struct Experiment {
  int devices = 8;
  int redundant = 0;
  double skew = 0.5;
  double burst = 0.5;
  SpeedModels planned_with;
  SpeedModels run_with;

  [[nodiscard]] std::map<std::string, double> run(const std::vector<std::string>& policies) const {
    std::map<std::string, double> time;
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      const auto routing =
          workload::make_synthetic({kLayers, kExperts, 8}, {skew, burst, 0.0}, seed);
      const auto trace = steps_of(*routing, 0, 4, kSteps, devices);
      const auto unseen = steps_of(*routing, 4 * kSteps, 1, kUnseen, devices);
      Matrix<double> mean({kLayers, kExperts});
      for (int step = 0; step < kSteps; ++step) {
        for (std::size_t i = 0; i < mean.size(); ++i) {
          mean.flat()[i] += trace.row(step)[i] / kSteps;
        }
      }
      for (const auto& name : policies) {
        Problem problem{mean, planned_with, devices, (kExperts + redundant) / devices, seed};
        problem.trace = &trace;
        const auto placement = solve(find_policy(name), problem);
        for (int step = 0; step < kUnseen; ++step) {
          for (int layer = 0; layer < kLayers; ++layer) {
            time[name] += layer_time_us(placement, layer, unseen.row(step, layer), run_with) /
                          (4.0 * kUnseen * kLayers);
          }
        }
      }
    }
    for (const auto& [name, value] : time) {
      std::printf("  %-10s %10.1f us\n", name.c_str(), value);
    }
    return time;
  }
};

#ifdef __SANITIZE_ADDRESS__
// ten times slower; what they call is sanitized by the other tests
#define SKIP_IF_SANITIZED() GTEST_SKIP() << "the release build runs this"
#else
#define SKIP_IF_SANITIZED() (void)0
#endif

TEST(Idea, OnUnseenBurstyStepsTheTraceBeatsTheMeanAndMinmaxBeatsGemLike) {
  SKIP_IF_SANITIZED();
  for (const int devices : {8, 16, 32}) {
    const auto speeds = unlike(devices);
    const Experiment experiment{devices, 0, 0.5, 0.5, speeds, speeds};
    std::printf("%d devices\n", devices);
    const auto time = experiment.run({"vibe", "gem_like", "minmax"});
    EXPECT_LT(time.at("gem_like"), time.at("vibe"));
    EXPECT_LT(time.at("minmax"), time.at("vibe"));
    EXPECT_LT(time.at("minmax"), time.at("gem_like"));
  }
  const auto speeds = unlike(32);
  std::printf("32 devices, 32 redundant\n");
  const auto time =
      Experiment{32, 32, 0.5, 0.5, speeds, speeds}.run({"vibe", "gem_like", "minmax"});
  EXPECT_LT(time.at("gem_like"), time.at("vibe"));
  EXPECT_LT(time.at("minmax"), time.at("gem_like"));
}

// Steady routing, so that speeds are all there is to know.
class Speeds : public testing::Test {
 protected:
  static constexpr int kDevices = 8;
  const std::vector<std::string> kAware{"vibe", "vibe_swap", "gem_like", "minmax"};

  /// Layer time of each speed-aware policy over that of eplb, minus 1.
  std::map<std::string, double> over_eplb(const SpeedModels& planned, const SpeedModels& run) {
    auto policies = kAware;
    policies.emplace_back("eplb");
    const auto time = Experiment{kDevices, 0, 1.0, 0.0, planned, run}.run(policies);
    std::map<std::string, double> over;
    for (const auto& name : kAware) {
      over[name] = time.at(name) / time.at("eplb") - 1.0;
    }
    return over;
  }
};

TEST_F(Speeds, WinWhereGpusDifferAndNotWhereTheyAreEqual) {
  SKIP_IF_SANITIZED();
  const auto differ = unlike(kDevices);
  const SpeedModels equal(kDevices, SpeedCurve({1.0}, {1.0}));
  const auto with = over_eplb(differ, differ);
  const auto without = over_eplb(equal, equal);
  // the same policies on the same GPUs, but told that all are equal
  const auto blind = over_eplb(equal, differ);
  for (const auto& name : kAware) {
    std::printf(
        "%-10s over eplb: %+.4f where GPUs differ, %+.4f where they are equal, %+.4f blind\n",
        name.c_str(), with.at(name), without.at(name), blind.at(name));
    EXPECT_LT(with.at(name), -0.05) << name;
    EXPECT_LT(with.at(name), blind.at(name) - 0.04) << name;
    // what searches keep over eplb's greedy is that they pack better, told of speeds or not
    EXPECT_LT(std::abs(without.at(name)), 0.25 * std::abs(with.at(name))) << name;
  }
  EXPECT_DOUBLE_EQ(without.at("vibe"), 0.0);  // the same greedy: nothing is left
}

TEST_F(Speeds, LoseWhenTheyAreShuffled) {
  SKIP_IF_SANITIZED();
  const auto differ = unlike(kDevices);
  auto shuffled = differ;
  std::ranges::rotate(shuffled, shuffled.begin() + 1);
  const auto over = over_eplb(shuffled, differ);
  for (const auto& name : kAware) {
    std::printf("%-10s over eplb with shuffled speeds: %+.4f\n", name.c_str(), over.at(name));
    EXPECT_GT(over.at(name), 0.01) << name;
  }
}

}  // namespace
}  // namespace moevar::placement
