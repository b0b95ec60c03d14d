// What every policy of the list must keep to, whatever the shape, the loads and the speeds.

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <map>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "cases.hpp"

namespace moevar::placement {
namespace {

/// Draws of a case: draw(n) is in {0 ... n − 1}.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : key_(seed) {}
  std::size_t operator()(std::size_t n) { return key_[next_++].below(n); }
  RandomKey key() { return key_[next_++]; }

 private:
  RandomKey key_;
  std::uint64_t next_ = 0;
};

constexpr std::array kLoadKinds{"zeros", "one hot", "all equal", "huge", "random", "sparse"};

double load_of(std::size_t kind, std::size_t expert, RandomKey key) {
  switch (kind) {
    case 0:
      return 0.0;
    case 1:
      return expert == 3 ? 1000.0 : 0.0;
    case 2:
      return 7.0;
    case 3:
      return 1e12 * key.uniform();
    case 4:
      return std::floor(std::exp(5.0 + 1.5 * key.normal()));
    default:
      return key[0].uniform() < 0.7 ? 0.0 : std::floor(500 * key[1].uniform());
  }
}

constexpr std::array kSpeedKinds{"flat",    "staircase",  "one slow", "proportional",
                                 "unequal", "fixed cost", "no time"};

SpeedCurve curve_of(std::size_t kind, int device, RandomKey key) {
  switch (kind) {
    case 0:
      return SpeedCurve({100, 2000}, {5, 5});
    case 1: {
      std::vector<double> tokens;
      std::vector<double> times;
      for (int stair = 1; stair <= 20; ++stair) {
        tokens.insert(tokens.end(), {128.0 * stair - 127, 128.0 * stair});
        times.insert(times.end(), 2, stair * (1.0 + 0.01 * device));
      }
      return SpeedCurve(tokens, times);
    }
    case 2:
      return proportional(device == 0 ? 2.0 : 1.0);
    case 3:
      return proportional(1.0);
    case 4:
      return SpeedCurve({100, 1000, 5000}, {10 + key[0].uniform(), 60 + 9 * key[1].uniform(), 400});
    case 5:
      return SpeedCurve({1, 1000}, {50.0 + device % 3, 150});
    default:
      return SpeedCurve({100}, {0});
  }
}

struct Shape {
  int devices = 0;
  int experts = 0;
  int slots_per_device = 0;
};

struct Case {
  explicit Case(std::uint64_t number) : seed(number) {
    Draws draw(number);
    constexpr std::array kDevices{1, 2, 3, 4, 8, 16, 32, 33, 64};
    constexpr std::array kExperts{8, 9, 16, 60, 64, 96, 128, 256};
    const int devices = kDevices[draw(kDevices.size())];
    const int experts = kExperts[draw(kExperts.size())];
    const int least = (experts + devices - 1) / devices;
    load_kind = draw(kLoadKinds.size());
    speed_kind = draw(kSpeedKinds.size());
    const int spare = std::array{0, 0, 1, 3}[draw(4)];
    const std::size_t steps = std::array<std::size_t, 5>{0, 0, 1, 2, 5}[draw(5)];
    const auto key = draw.key();
    constexpr std::size_t kLayers = 2;
    mean = Matrix<double>({kLayers, static_cast<std::size_t>(experts)}, 0.0);
    trace = Tensor<double, 3>({std::max<std::size_t>(steps, 1), kLayers, mean.extent(1)});
    for (std::size_t t = 0; t < trace.extent(0); ++t) {
      for (std::size_t layer = 0; layer < kLayers; ++layer) {
        for (std::size_t e = 0; e < mean.extent(1); ++e) {
          trace(t, layer, e) = load_of(load_kind, e, key[t][layer][e]);
          mean(layer, e) += trace(t, layer, e) / static_cast<double>(trace.extent(0));
        }
      }
    }
    for (int d = 0; d < devices; ++d) {
      speeds.push_back(curve_of(speed_kind, d, key[99][static_cast<std::uint64_t>(d)]));
    }
    shape = {devices, experts, least + spare};
    with_trace = steps > 0;
    nodes = devices % 2 == 0 && draw(2) == 0 ? 2 : 1;
    groups = experts % 4 == 0 && draw(2) == 0 ? 4 : 1;
  }

  [[nodiscard]] Problem problem() const {
    return {
        mean,   speeds, shape.devices, shape.slots_per_device, seed, with_trace ? &trace : nullptr,
        groups, nodes};
  }
  [[nodiscard]] std::string name() const {
    return "case " + std::to_string(seed) + ": " + std::to_string(shape.experts) + " experts on " +
           std::to_string(shape.devices) + " x " + std::to_string(shape.slots_per_device) +
           ", loads " + kLoadKinds[load_kind] + ", speeds " + kSpeedKinds[speed_kind] +
           (with_trace ? ", trace" : "") + (nodes == 2 ? ", two nodes" : "") +
           (groups == 4 ? ", four groups" : "");
  }

  std::uint64_t seed;
  Shape shape;
  std::size_t load_kind = 0;
  std::size_t speed_kind = 0;
  bool with_trace = false;
  int nodes = 1;
  int groups = 1;
  Matrix<double> mean;
  Tensor<double, 3> trace;
  SpeedModels speeds;
};

/// Σ over steps of the slowest device, ÷ steps, by loops of its own.
double predicted_again(const Placement& p, std::size_t layer, const SpeedModels& speeds,
                       const std::vector<std::span<const double>>& steps) {
  double sum = 0;
  for (const auto& loads : steps) {
    std::vector<double> tokens(speeds.size(), 0.0);
    for (int slot = 0; slot < p.slots(); ++slot) {
      tokens[static_cast<std::size_t>(slot / p.slots_per_device)] +=
          p.share_of_slot(layer, slot) *
          loads[static_cast<std::size_t>(p.expert_of_slot(layer, slot))];
    }
    double slowest = 0;
    for (std::size_t d = 0; d < tokens.size(); ++d) {
      slowest = std::max(slowest, speeds[d].time_us(tokens[d]));
    }
    sum += slowest;
  }
  return sum / static_cast<double>(steps.size());
}

class Checker {
 public:
  Checker(const Policy& policy, const Case& given) : policy_(policy), given_(given) {}

  int run() {
    const auto problem = given_.problem();
    const auto plans = solve_steps(policy_, problem);
    const bool each = policy_.per_step() && given_.with_trace;
    expect(plans.size() == (each ? given_.trace.extent(0) : 1), "as many plans as steps");
    for (std::size_t i = 0; i < plans.size(); ++i) {
      check(plans[i], each ? i : 0, each ? i + 1 : given_.trace.extent(0));
    }
    const auto again = solve_steps(policy_, problem);
    for (std::size_t i = 0; i < plans.size(); ++i) {
      expect(plans[i].expert_of_slot == again[i].expert_of_slot &&
                 plans[i].share_of_slot == again[i].share_of_slot &&
                 plans[i].predicted_us == again[i].predicted_us,
             "deterministic");
    }
    return checks_;
  }

 private:
  void expect(bool holds, const char* what) {
    EXPECT_TRUE(holds) << policy_.name << ": " << what << "; " << given_.name();
    ++checks_;
  }

  void check(const Placement& p, std::size_t first_step, std::size_t last_step) {
    EXPECT_NO_THROW(check_placement(p, given_.shape.experts)) << policy_.name << given_.name();
    ++checks_;
    expect(p.devices == given_.shape.devices, "devices kept");
    expect(policy_.per_step() ? p.slots_per_device >= given_.shape.slots_per_device ||
                                    p.slots_per_device >= given_.shape.experts
                              : p.slots_per_device == given_.shape.slots_per_device,
           "slots kept");
    for (std::size_t layer = 0; layer < 2; ++layer) {
      // DeepSeek's published packing may put two copies on a device: exempt, as its flag says
      if (!policy_.keeps_duplicates && p.slots_per_device <= given_.shape.experts) {
        expect(!doubled(p, layer), "replicas on different devices");
      }
      std::vector<std::span<const double>> steps;
      for (std::size_t t = first_step; t < last_step; ++t) {
        steps.push_back(given_.trace.row(t, layer));
      }
      const double again = predicted_again(p, layer, given_.speeds, steps);
      expect(std::abs(p.predicted_us[layer] - again) <= 1e-9 * again, "predicted as recomputed");
      expect(p.lower_bound_us[layer] <= p.predicted_us[layer] * (1 + 1e-9),
             "bound not above predicted");
      expect(p.lower_bound_us[layer] >= 0, "bound not negative");
    }
  }

  /// Two slots of a device that both take tokens of the same expert.
  [[nodiscard]] static bool doubled(const Placement& p, std::size_t layer) {
    std::set<std::pair<int, std::int32_t>> seen;
    for (int slot = 0; slot < p.slots(); ++slot) {
      if (p.share_of_slot(layer, slot) > 0 &&
          !seen.emplace(slot / p.slots_per_device, p.expert_of_slot(layer, slot)).second) {
        return true;
      }
    }
    return false;
  }

  const Policy& policy_;
  const Case& given_;
  int checks_ = 0;
};

TEST(EveryPolicy, KeepsToWhatAPlacementMustBe) {
  int checks = 0;
#ifdef __SANITIZE_ADDRESS__
  constexpr std::uint64_t kCases = 24;  // ten times slower
#else
  constexpr std::uint64_t kCases = 120;
#endif
  for (std::uint64_t seed = 0; seed < kCases; ++seed) {
    const Case given(seed);
    for (const auto& policy : policies()) {
      checks += Checker(policy, given).run();
    }
  }
  std::cout << checks << " checks of " << policies().size() << " policies on " << kCases
            << " problems\n";
  RecordProperty("checks", checks);
  EXPECT_GT(checks, static_cast<int>(kCases * policies().size()) * 10);
}

// A factor on all curves is a change of the unit of time; a power of two is exact.
TEST(EveryPolicy, IgnoresAFactorOnAllSpeeds) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Case given(seed);
    auto problem = given.problem();
    if (given.speed_kind == 6) {
      continue;
    }
    SpeedModels scaled;
    for (const auto& curve : given.speeds) {
      std::vector<double> tokens(curve.grid().begin() + 1, curve.grid().end());
      std::vector<double> times;
      for (const double time : curve.times().subspan(1)) {
        times.push_back(4.0 * time);
      }
      scaled.emplace_back(tokens, times);
    }
    const Problem slower{problem.mean_loads,       scaled,       problem.devices,
                         problem.slots_per_device, problem.seed, problem.trace,
                         problem.groups,           problem.nodes};
    for (const auto& policy : policies()) {
      const auto here = solve_steps(policy, problem);
      const auto there = solve_steps(policy, slower);
      for (std::size_t i = 0; i < here.size(); ++i) {
        EXPECT_EQ(here[i].expert_of_slot, there[i].expert_of_slot) << policy.name << given.name();
      }
    }
  }
}

/// The tokens of a layer's devices in rising order.
std::vector<double> sorted_tokens(const Placement& p, int layer, const Matrix<double>& loads) {
  auto tokens = device_tokens(p, layer, loads.row(layer));
  std::ranges::sort(tokens);
  return tokens;
}

TEST(EqualSpeeds, MakeViBEsGreedyEplbUpToTies) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Matrix<double> loads({4, 64});
    for (std::size_t i = 0; i < loads.size(); ++i) {
      loads.flat()[i] = static_cast<double>(RandomKey(seed)[i].below(40));  // many ties
    }
    const SpeedModels speeds(8, SpeedCurve({100, 1000}, {50, 140}));
    const Problem problem{loads, speeds, 8, 8, 0};
    const auto eplb = solve(find_policy("eplb"), problem);
    for (const char* name : {"vibe", "vibe_finish"}) {
      const auto vibe = solve(find_policy(name), problem);
      for (int layer = 0; layer < 4; ++layer) {
        EXPECT_EQ(sorted_tokens(vibe, layer, loads), sorted_tokens(eplb, layer, loads)) << name;
      }
    }
  }
}

/// What ties come to: eight equal experts on four equal devices with two slots, then with three.
struct Ties {
  Slots once;
  Slots replicated;
};

TEST(EveryPolicy, ResolvesTiesAsWrittenHere) {
  const std::map<std::string_view, Ties> expected{
      {"contiguous", {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3}}},
      {"round_robin", {{0, 4, 1, 5, 2, 6, 3, 7}, {3, 4, 0, 0, 5, 1, 1, 6, 2, 2, 7, 3}}},
      {"random", {{7, 0, 3, 5, 2, 6, 4, 1}, {0, 1, 3, 5, 2, 3, 4, 2, 7, 0, 1, 6}}},
      {"eplb", {{0, 4, 1, 5, 2, 6, 3, 7}, {4, 0, 0, 5, 1, 1, 6, 2, 2, 7, 3, 3}}},
      {"eplb_steps", {{0, 7, 1, 6, 2, 5, 3, 4}, {4, 1, 2, 5, 1, 2, 6, 0, 3, 7, 0, 3}}},
      {"sorted", {{0, 7, 1, 6, 2, 5, 3, 4}, {4, 1, 2, 5, 1, 2, 6, 0, 3, 7, 0, 3}}},
      {"vibe", {{0, 4, 1, 5, 2, 6, 3, 7}, {4, 0, 2, 5, 0, 2, 6, 1, 3, 7, 1, 3}}},
      {"vibe_finish", {{0, 4, 1, 5, 2, 6, 3, 7}, {4, 0, 2, 5, 0, 2, 6, 1, 3, 7, 1, 3}}},
      {"vibe_swap", {{0, 4, 1, 5, 2, 6, 3, 7}, {4, 0, 2, 5, 0, 2, 6, 1, 3, 7, 1, 3}}},
      {"flashlb", {{0, 4, 1, 5, 2, 6, 3, 7}, {4, 0, 2, 5, 0, 2, 6, 1, 3, 7, 1, 3}}},
      {"gem_like", {{0, 1, 2, 3, 4, 5, 6, 7}, {4, 5, 6, 7, 3, 1, 0, 1, 2, 2, 0, 3}}},
      {"oracle", {{0, 4, 1, 5, 2, 6, 3, 7}, {0, 4, 1, 1, 5, 0, 2, 6, 0, 3, 7, 0}}},
      {"minmax", {{0, 4, 1, 5, 2, 6, 3, 7}, {0, 4, 1, 1, 5, 0, 2, 6, 0, 3, 7, 0}}},
      {"harmoeny", {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3}}},
      {"harmoeny_speed", {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3}}},
  };
  const Matrix<double> loads({1, 8}, 5.0);
  const auto speeds = equal_speeds(4);
  for (const auto& policy : policies()) {
    const auto once = row(solve(policy, {loads, speeds, 4, 2, 0}), 0);
    const auto replicated = row(solve(policy, {loads, speeds, 4, 3, 0}), 0);
    const auto ties = expected.find(policy.name);
    if (ties == expected.end()) {
      ADD_FAILURE() << policy.name << " has no line here; it gives " << testing::PrintToString(once)
                    << " and " << testing::PrintToString(replicated);
      continue;
    }
    EXPECT_EQ(once, ties->second.once) << policy.name;
    EXPECT_EQ(replicated, ties->second.replicated) << policy.name;
  }
}

}  // namespace
}  // namespace moevar::placement
