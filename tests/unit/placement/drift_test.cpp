#include "placement/drift.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.hpp"

namespace moevar::placement {
namespace {

using Loads = std::vector<std::uint32_t>;

/// Two layers of two experts; layer 1 turns from expert 0 to expert 1 by `part`.
Loads turned(double part, double scale = 1.0) {
  const auto tokens = [&](double share) {
    return static_cast<std::uint32_t>(std::lround(scale * 1000.0 * share));
  };
  return {tokens(0.5), tokens(0.5), tokens(1.0 - part), tokens(part)};
}

Matrix<double> planned(const Loads& loads) {
  Matrix<double> mean({2, 2});
  std::ranges::copy(loads, mean.flat().begin());
  return mean;
}

LoadDrift detector(const Loads& at_first = turned(0.0), const DriftOptions& options = {}) {
  LoadDrift drift(2, 2, options);
  drift.solved(planned(at_first));
  return drift;
}

/// The step, counted from 1, at which the test fires; 0 where it does not within `most` steps.
int fires_after(LoadDrift& drift, const Loads& loads, int most) {
  for (int step = 1; step <= most; ++step) {
    drift.step(loads);
    if (drift.trigger()) {
      return step;
    }
  }
  return 0;
}

// 1 - cos of (1 - p, p) against (1, 0) is 1 - (1 - p) / sqrt((1 - p)^2 + p^2): 0.0513 at p = 0.25,
// 0.0298 at p = 0.2
TEST(LoadDrift, CosineFiresAtTheFirstCheckAndNamesTheLayer) {
  auto drift = detector();
  EXPECT_EQ(fires_after(drift, turned(0.25), 100), 10);
  ASSERT_TRUE(drift.trigger());
  EXPECT_EQ(drift.trigger()->kind, LoadTrigger::Kind::cosine);
  EXPECT_EQ(drift.trigger()->layer, 1);
  EXPECT_NEAR(drift.trigger()->value, 1.0 - 0.75 / std::hypot(0.75, 0.25), 1e-12);
  EXPECT_EQ(describe(*drift.trigger()), "cosine 0.051 in layer 1 after 10 steps");
  auto below = detector();
  EXPECT_EQ(fires_after(below, turned(0.2), 300), 0);
}

TEST(LoadDrift, TheWindowsMeanDecidesNotTheLatestStep) {
  auto drift = detector();
  EXPECT_EQ(fires_after(drift, turned(0.0), 20), 0);
  // of k new steps beside 20 old ones the mean has turned by 0.5 k / (20 + k): 0.25 at k = 20
  EXPECT_EQ(fires_after(drift, turned(0.5), 100), 20);
  EXPECT_EQ(drift.trigger()->steps, 40);
  auto old = detector();
  EXPECT_EQ(fires_after(old, turned(0.0), 500), 0);
  // of 100 steps in the window, 50 must be new
  EXPECT_EQ(fires_after(old, turned(0.5), 200), 50) << "only the window counts";
}

TEST(LoadDrift, FewTokensAreNotChecked) {
  DriftOptions options;
  options.least_per_expert = 30.0 * 1000.0 / 2.0;  // thirty steps' worth
  auto drift = detector(turned(0.0), options);
  EXPECT_EQ(fires_after(drift, turned(0.5), 100), 30);
  const auto mean = drift.window_mean();
  EXPECT_EQ(mean(0, 0), 500.0);
  EXPECT_EQ(mean(1, 1), 500.0);
}

TEST(LoadDrift, CosineIsBlindToScaledLoadsAndMagnitudeIsNot) {
  DriftOptions as_published;
  as_published.magnitude = INFINITY;
  for (const double scale : {0.5, 0.75, 1.3, 3.0}) {
    auto blind = detector(turned(0.1), as_published);
    EXPECT_EQ(fires_after(blind, turned(0.1, scale), 300), 0) << scale;
    auto drift = detector(turned(0.1));
    EXPECT_EQ(fires_after(drift, turned(0.1, scale), 300), 10) << scale;
    EXPECT_EQ(drift.trigger()->kind, LoadTrigger::Kind::magnitude);
    EXPECT_NEAR(drift.trigger()->value, scale - 1.0, 1e-9);
  }
  for (const double scale : {0.81, 1.19}) {
    auto within = detector(turned(0.1));
    EXPECT_EQ(fires_after(within, turned(0.1, scale), 300), 0) << scale;
  }
  auto one_layer = detector();
  EXPECT_EQ(fires_after(one_layer, {625, 625, 1000, 0}, 20), 10);
  EXPECT_EQ(describe(*one_layer.trigger()), "magnitude +0.25 in layer 0 after 10 steps");
}

TEST(LoadDrift, LayersWithoutTokens) {
  auto silent = detector({0, 0, 1000, 0});
  EXPECT_EQ(fires_after(silent, {0, 0, 1000, 0}, 50), 0);
  auto wakes = detector({0, 0, 1000, 0});
  EXPECT_EQ(fires_after(wakes, {5, 0, 1000, 0}, 50), 10);
  EXPECT_EQ(wakes.trigger()->layer, 0);
  EXPECT_EQ(wakes.trigger()->value, 1.0);
}

// Trap 14: at the first firing the window still holds old steps, so the new reference is a mixture,
// from which the window goes on to move away.
TEST(LoadDrift, TheStraddlingWindowFiresOnceMoreAndLess) {
  auto drift = detector();
  EXPECT_EQ(fires_after(drift, turned(0.0), 200), 0);
  std::vector<int> firings;
  std::vector<double> distances;
  for (int step = 1; step <= 400; ++step) {
    drift.step(turned(1.0));
    if (drift.trigger()) {
      firings.push_back(step);
      distances.push_back(drift.trigger()->value);
      drift.solved(planned(turned(1.0)));
    }
  }
  // k of 100 steps are new: 1 - cos of (1 - k, k) exceeds 0.05 first at k = 0.30; from there the
  // reference has turned by atan(3/7), and so on until the window is new altogether
  ASSERT_GE(firings.size(), 2U);
  EXPECT_EQ(firings.front(), 30);
  EXPECT_EQ(firings[1] - firings[0], 20) << "one check is skipped after a firing";
  EXPECT_LE(firings.back(), 110) << "a window of new steps alone is quiet";
  auto emptied = detector(turned(1.0));
  EXPECT_EQ(fires_after(emptied, turned(1.0), 400), 0);
}

TEST(LoadDrift, CoolDownSkipsOneCheckCountedFromTheSolve) {
  auto drift = detector();
  EXPECT_EQ(fires_after(drift, turned(0.5), 100), 10);
  // no check while a trigger waits; the migration ends at step 13: steps 14 to 23 are quiet
  for (int i = 0; i < 3; ++i) {
    drift.step(turned(0.5));
  }
  drift.solved(planned(turned(0.5)));
  EXPECT_FALSE(drift.trigger());
  EXPECT_EQ(fires_after(drift, turned(0.0, 8.0), 100), 17) << "step 20 is skipped, 30 is not";
  EXPECT_EQ(drift.trigger()->steps, 17);
  // solved again without a trigger: nothing to cool down from
  auto calm = detector();
  EXPECT_EQ(fires_after(calm, turned(0.0), 10), 0);
  calm.solved(planned(turned(0.0)));
  EXPECT_EQ(fires_after(calm, turned(0.9, 20.0), 100), 10);
}

/// A device that takes `factor` times its model, with 1 % of noise and a bias of its own.
void feed(ResidualDrift& drift, double factor, int steps, std::uint64_t seed, int layers = 5,
          double bias = 1.06) {
  const SpeedCurve model({1000.0}, {100.0});
  for (int step = 0; step < steps; ++step) {
    Loads tokens;
    std::vector<std::int64_t> expert_ns;
    for (int layer = 0; layer < layers; ++layer) {
      const auto draw =
          RandomKey(seed)[static_cast<std::uint64_t>(step)][static_cast<std::uint64_t>(layer)];
      tokens.push_back(static_cast<std::uint32_t>(500 + draw[0].below(1000)));
      expert_ns.push_back(std::llround(1e3 * model.time_us(tokens.back()) * bias * factor *
                                       (1.0 + 0.01 * draw[1].normal())));
    }
    drift.step(model, tokens, expert_ns);
  }
}

TEST(ResidualDrift, NamesTheDeviceThatLeftItsModelAndNoOther) {
  for (const double factor : {1.08, 0.92}) {
    std::vector<ResidualDrift> fleet(8);
    for (std::uint64_t d = 0; d < 8; ++d) {
      feed(fleet[d], 1.0, 40, 10 + d);
      EXPECT_FALSE(fleet[d].trigger()) << d;
    }
    for (std::uint64_t d = 0; d < 8; ++d) {
      feed(fleet[d], d == 3 ? factor : 1.0, 40, 100 + d);
      EXPECT_EQ(fleet[d].trigger().has_value(), d == 3) << d;
    }
    EXPECT_NEAR(*fleet[3].trigger(), factor, 0.01);
    fleet[3].solved();
    feed(fleet[3], factor, 100, 7);
    EXPECT_FALSE(fleet[3].trigger()) << "the new model's bias is the reference";
  }
}

TEST(ResidualDrift, SmallOrRareChangesDoNotFire) {
  ResidualDrift drift;
  feed(drift, 1.0, 20, 1);
  feed(drift, 1.04, 100, 2);
  EXPECT_FALSE(drift.trigger()) << "4 % is within the threshold";
  ResidualDrift rare;
  feed(rare, 1.0, 20, 3);
  for (int i = 0; i < 10; ++i) {
    feed(rare, 1.0, 6, 10 + static_cast<std::uint64_t>(i));
    feed(rare, 3.0, 4, 30 + static_cast<std::uint64_t>(i));
  }
  EXPECT_FALSE(rare.trigger()) << "a median does not see fewer than half of the calls";
}

TEST(ResidualDrift, ThinIntervalsAreJoined) {
  ResidualDrift drift;
  feed(drift, 1.0, 30, 1, 1);  // 30 calls of one layer: the reference
  feed(drift, 1.5, 29, 2, 1);
  EXPECT_FALSE(drift.trigger()) << "29 calls are too few";
  feed(drift, 1.5, 1, 3, 1);
  EXPECT_TRUE(drift.trigger());
  ResidualDrift idle;
  const SpeedCurve model({1000.0}, {100.0});
  for (int step = 0; step < 100; ++step) {
    idle.step(model, Loads{0, 0}, std::vector<std::int64_t>{0, 0});
  }
  EXPECT_FALSE(idle.trigger());
}

TEST(Drift, GoesOnFromWhatWasSaved) {
  const Matrix<double> planned({2, 3}, 100.0);
  const auto loads_of = [](int step) {
    Loads loads;
    for (std::uint64_t i = 0; i < 6; ++i) {
      const auto draw = RandomKey(5)[static_cast<std::uint64_t>(step)][i];
      loads.push_back(
          static_cast<std::uint32_t>(50 + draw[0].below(100 + (step > 60 ? 90 * i : 0))));
    }
    return loads;
  };
  for (const int broken_at : {0, 7, 65, 99, 130}) {
    LoadDrift whole(2, 3);
    LoadDrift first(2, 3);
    whole.solved(planned);
    first.solved(planned);
    for (int step = 0; step < broken_at; ++step) {
      whole.step(loads_of(step));
      first.step(loads_of(step));
    }
    ArchiveWriter writer;
    first.save(writer);
    const auto bytes = std::move(writer).take();
    LoadDrift second(2, 3);
    ArchiveReader reader(bytes);
    second.restore(reader);
    EXPECT_TRUE(reader.at_end());
    int fired = 0;
    for (int step = broken_at; step < 400; ++step) {
      whole.step(loads_of(step));
      second.step(loads_of(step));
      ASSERT_EQ(whole.trigger().has_value(), second.trigger().has_value()) << step;
      if (whole.trigger()) {
        ++fired;
        EXPECT_EQ(describe(*whole.trigger()), describe(*second.trigger()));
        EXPECT_EQ(whole.trigger()->value, second.trigger()->value);
        whole.solved(planned);
        second.solved(planned);
      }
    }
    EXPECT_GT(fired, 0) << "else nothing was compared";
  }
}

TEST(ResidualDrift, GoesOnFromWhatWasSaved) {
  ResidualDrift whole;
  feed(whole, 1.0, 25, 1);
  ArchiveWriter writer;
  whole.save(writer);
  const auto bytes = std::move(writer).take();
  ResidualDrift second;
  ArchiveReader reader(bytes);
  second.restore(reader);
  EXPECT_TRUE(reader.at_end());
  feed(whole, 1.08, 40, 2);
  feed(second, 1.08, 40, 2);
  ASSERT_TRUE(whole.trigger());
  EXPECT_EQ(whole.trigger(), second.trigger());
}

}  // namespace
}  // namespace moevar::placement
