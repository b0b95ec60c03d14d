#include "run/measure.hpp"

#include <cmath>
#include <functional>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "model_case.hpp"
#include "run/join.hpp"

namespace moevar::run {
namespace {

/// A device a rank whose layers take the time that `time_ns(device, step)` says.
class ScriptedBackend final : public Backend {
 public:
  ScriptedBackend(const mpi::Communicator& comm,
                  std::function<double(int device, std::size_t step)> time_ns)
      : comm_(comm), time_ns_(std::move(time_ns)), fleet_(static_cast<std::size_t>(comm.size())) {}

  [[nodiscard]] const std::vector<DeviceIdentity>& fleet() const override { return fleet_; }
  [[nodiscard]] DeviceRange mine() const override { return {comm_.rank(), comm_.rank() + 1}; }
  [[nodiscard]] std::string timer() const override { return "script"; }
  [[nodiscard]] std::string sync() const override { return "script"; }
  void enter(const study::Condition& /*condition*/) override {}
  timeline::FleetState settle() override { return {}; }
  placement::SpeedModels profile(int /*slots*/, double /*max_tokens*/,
                                 std::span<const DeviceId> /*devices*/) override {
    return {};
  }
  Migration move_to(const placement::Placement& /*placement*/) override { return {}; }
  PhaseResult run(const PhaseSteps& steps) override {
    blocks.push_back({steps.ran_before, steps.loads.extent(0)});
    warmups += steps.warmup_steps;
    first_steps.insert(steps.first_step);
    PhaseResult result;
    result.mine = timeline::Timeline(1, steps.loads.extent(0), 1);
    Nanoseconds clock = 0;
    for (std::size_t step = 0; step < steps.loads.extent(0); ++step) {
      const Nanoseconds time = std::llround(time_ns_(comm_.rank(), steps.ran_before + step));
      result.mine.expert_ns(0, step, 0) = time;
      clock += time;
      result.mine.arrival_ns(0, step, 0) = clock;
    }
    result.totals = timeline::reduce_totals(comm_, timeline::totals_of(result.mine));
    return result;
  }

  std::vector<std::pair<std::size_t, std::size_t>> blocks;  ///< steps before, steps
  int warmups = 0;
  std::set<std::int64_t> first_steps;

 private:
  const mpi::Communicator& comm_;
  std::function<double(int, std::size_t)> time_ns_;
  std::vector<DeviceIdentity> fleet_;
};

study::Phases rule(double precision, int steps, int max_steps) {
  study::Phases phases;
  phases.precision = precision;
  phases.steps = steps;
  phases.max_steps = max_steps;
  return phases;
}

class MeasureTest : public testing::Test {
 protected:
  Measured measure_with(const study::Phases& phases) {
    const auto all =
        static_cast<std::size_t>(phases.precision > 0.0 ? phases.max_steps : phases.steps);
    const workload::Loads loads({all, 1, 1});
    return measure(world_, phases, *backend_,
                   {.first_step = 100,
                    .warmup_steps = 2,
                    .tokens = 1,
                    .routing = routing_,
                    .loads = loads,
                    .placements = std::span(&placement_, 1)});
  }
  void use(std::function<double(int, std::size_t)> time_ns) {
    backend_.emplace(world_, std::move(time_ns));
  }

  mpi::Communicator world_ = mpi::Communicator::world();
  std::optional<ScriptedBackend> backend_;
  NoRouting routing_;
  placement::Placement placement_;
};

double noise(int device, std::size_t step) {
  return RandomKey(11)[static_cast<std::uint64_t>(device)][step].normal();
}

TEST_F(MeasureTest, AFixedNumberOfStepsIsRunAtOnce) {
  use([](int /*device*/, std::size_t /*step*/) { return 1e6; });
  const auto measured = measure_with(rule(0.0, 7, 1000));
  EXPECT_EQ(measured.stop_reason, "fixed");
  EXPECT_EQ(backend_->blocks, (std::vector<std::pair<std::size_t, std::size_t>>{{0, 7}}));
  EXPECT_EQ(measured.result.mine.steps(), 7U);
}

TEST_F(MeasureTest, EvenStepsAreEnoughAtTheFewest) {
  use([](int /*device*/, std::size_t /*step*/) { return 1e6; });
  const auto measured = measure_with(rule(0.01, 8, 1000));
  EXPECT_EQ(measured.stop_reason, "precision");
  EXPECT_EQ(measured.result.mine.steps(), 32U);  // the first block end from 30 steps on
  EXPECT_EQ(backend_->warmups, 2);
  EXPECT_EQ(backend_->first_steps, (std::set<std::int64_t>{100, 108, 116, 124}));
}

// Half the width of a median's interval is about 1.96 x 1.25 sd / sqrt(n): with 5 % of noise and 1
// % wanted, some 150 steps; four times as many for half the width.
TEST_F(MeasureTest, NoisierStepsTakeLonger) {
  use([](int device, std::size_t step) { return 1e6 * (1.0 + 0.05 * noise(device, step)); });
  const auto coarse = measure_with(rule(0.01, 16, 4096));
  EXPECT_EQ(coarse.stop_reason, "precision");
  EXPECT_GT(coarse.result.mine.steps(), 75U);
  EXPECT_LT(coarse.result.mine.steps(), 400U);
  const auto fine = measure_with(rule(0.005, 16, 4096));
  EXPECT_EQ(fine.stop_reason, "precision");
  EXPECT_GT(fine.result.mine.steps(), 2 * coarse.result.mine.steps());
}

// One device is noisy, the others are not: all ranks go on together and end together.
TEST_F(MeasureTest, RanksAgree) {
  const int noisy = world_.size() - 1;
  use([noisy](int device, std::size_t step) {
    return 1e6 * (1.0 + (device == noisy ? 0.05 * noise(device, step) : 0.0));
  });
  const auto measured = measure_with(rule(0.01, 16, 4096));
  EXPECT_EQ(measured.stop_reason, "precision");
  EXPECT_GT(measured.result.mine.steps(), 75U);
  const auto lengths = world_.all_gather(static_cast<std::int64_t>(measured.result.mine.steps()));
  EXPECT_EQ(std::set(lengths.begin(), lengths.end()).size(), 1U);
}

TEST_F(MeasureTest, EndsAtTheMostStepsInAShorterBlock) {
  use([](int device, std::size_t step) { return 1e6 * (1.0 + 0.5 * noise(device, step)); });
  const auto measured = measure_with(rule(1e-6, 16, 40));
  EXPECT_EQ(measured.stop_reason, "max_n");
  EXPECT_EQ(backend_->blocks,
            (std::vector<std::pair<std::size_t, std::size_t>>{{0, 16}, {16, 16}, {32, 8}}));
}

TEST_F(MeasureTest, EndsWhereTimeIsUp) {
  use([](int device, std::size_t step) { return 1e6 * (1.0 + 0.5 * noise(device, step)); });
  auto phases = rule(1e-6, 16, 4096);
  phases.time_limit_s = 0.004;  // a step takes about 1 ms
  const auto measured = measure_with(phases);
  EXPECT_EQ(measured.stop_reason, "time_limit");
  EXPECT_EQ(measured.result.mine.steps(), 16U);
}

// Times that wander as a random walk get no more precise with more steps.
TEST_F(MeasureTest, EndsWhereMoreStepsTellNoMore) {
  use([](int device, std::size_t step) {
    double walk = 0.0;
    for (std::size_t i = 0; i <= step; ++i) {
      walk += noise(device, i);
    }
    return 1e6 * (1.0 + 0.002 * walk);
  });
  const auto measured = measure_with(rule(1e-6, 64, 8192));
  EXPECT_EQ(measured.stop_reason, "no_further_gain");
  EXPECT_LT(measured.result.mine.steps(), 8192U);
}

// Autocorrelated steps count for less: 0.9 makes 19 of one.
TEST_F(MeasureTest, CorrelatedStepsTakeLonger) {
  const auto correlated = [](double rho) {
    return [rho](int device, std::size_t step) {
      double x = 0.0;
      for (std::size_t i = step < 60 ? 0 : step - 60; i <= step; ++i) {
        x = rho * x + std::sqrt(1.0 - rho * rho) * noise(device, i);
      }
      return 1e6 * (1.0 + 0.02 * x);
    };
  };
  use(correlated(0.0));
  const auto free = measure_with(rule(0.01, 16, 8192)).result.mine.steps();
  use(correlated(0.9));
  const auto bound = measure_with(rule(0.01, 16, 8192));
  EXPECT_EQ(bound.stop_reason, "precision");
  EXPECT_GT(bound.result.mine.steps(), 4 * free);
}

// The blocks of a phase are its steps, bit for bit, settled and in time.
TEST(MeasureModel, BlocksMakeUpTheWhole) {
  const auto world = mpi::Communicator::world();
  for (const auto heat : {study::Heat::soaked, study::Heat::ambient}) {
    constexpr std::size_t kAll = 20;
    const auto run = [&](const study::Phases& phases) {
      Case one(world, 6, 12, {}, 1, {}, 0.0, kAll);
      one.backend.enter({.power_cap_w = 500.0, .heat = heat});
      (void)one.backend.settle();
      return measure(world, phases, one.backend,
                     {.phase = 3,
                      .warmup_steps = 1,
                      .tokens = 6 * kTokensPerDevice,
                      .routing = one.routing,
                      .loads = one.loads,
                      .placements = std::span(&one.placement, 1)})
          .result;
    };
    const auto blocks = run(rule(1e-9, 8, kAll));
    const auto whole = run(rule(0.0, kAll, kAll));
    EXPECT_EQ(blocks.mine.tokens, whole.mine.tokens);
    EXPECT_EQ(blocks.mine.dispatch_ns, whole.mine.dispatch_ns);
    EXPECT_EQ(blocks.mine.expert_ns, whole.mine.expert_ns);
    EXPECT_EQ(blocks.mine.arrival_ns, whole.mine.arrival_ns);
    EXPECT_EQ(blocks.mine.wait_ns, whole.mine.wait_ns);
    EXPECT_EQ(blocks.mine.combine_ns, whole.mine.combine_ns);
    EXPECT_EQ(blocks.totals.layer_ns, whole.totals.layer_ns);
    EXPECT_EQ(blocks.totals.busy_sum_ns, whole.totals.busy_sum_ns);
    EXPECT_EQ(blocks.totals.expert_min_ns, whole.totals.expert_min_ns);
    EXPECT_EQ(blocks.totals.tokens_max, whole.totals.tokens_max);
    EXPECT_EQ(blocks.totals.devices, whole.totals.devices);
    EXPECT_EQ(blocks.telemetry.step_sm_clock_mhz, whole.telemetry.step_sm_clock_mhz);
    EXPECT_EQ(blocks.telemetry.step_temperature_c, whole.telemetry.step_temperature_c);
    ASSERT_EQ(blocks.telemetry.counted.size(), whole.telemetry.counted.size());
    for (std::size_t d = 0; d < whole.telemetry.counted.size(); ++d) {
      EXPECT_NEAR(blocks.telemetry.counted[d].energy_mj, whole.telemetry.counted[d].energy_mj,
                  1e-9 * whole.telemetry.counted[d].energy_mj);
    }
  }
}

}  // namespace
}  // namespace moevar::run
