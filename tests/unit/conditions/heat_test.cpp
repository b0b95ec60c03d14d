#include "conditions/heat.hpp"

#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "conditions/keeper.hpp"
#include "system/mpi.hpp"

namespace moevar::conditions {
namespace {

using timeline::Reading;

constexpr double kTau = 40.0;

/// Devices that go towards a temperature with a time constant of 40 s, their clock falling with it;
/// no outside library, no MPI.
class ScriptedPlant : public Plant {
 public:
  explicit ScriptedPlant(std::vector<double> hot_c) : hot_c_(std::move(hot_c)) {
    celsius_.assign(hot_c_.size(), kCool);
  }

  void set_cap(std::optional<double> request_w) override { request_w_ = request_w; }
  std::vector<timeline::CapState> caps() override {
    return std::vector<timeline::CapState>(
        hot_c_.size(), {.requested_w = request_w_.value_or(timeline::kUnknown)});
  }
  void work(double seconds, Burn burn) override {
    seconds_ += seconds;
    burns.push_back(burn);
    for (std::size_t i = 0; i < celsius_.size(); ++i) {
      const double target = burn == Burn::nobody ? kCool : hot_c_[i];
      celsius_[i] = target + (celsius_[i] - target) * std::exp(-seconds / kTau);
    }
  }
  void keep_burning(Burn burn) override { kept = burn; }
  std::vector<Reading> read() override {
    std::vector<Reading> readings;
    for (std::size_t i = 0; i < celsius_.size(); ++i) {
      Reading reading{.time_ns = static_cast<Nanoseconds>(1e9 * seconds_),
                      .sm_clock_mhz = 2000.0 - celsius_[i],
                      .power_w = 300.0,
                      .temperature_c = celsius_[i],
                      .throttle_reasons = 0};
      readings.push_back(disturb ? disturb(i, reading) : reading);
    }
    return readings;
  }
  std::vector<timeline::Counters> count() override { return {}; }
  void start_telemetry(double) override {}
  std::vector<std::vector<Reading>> stop_telemetry() override { return {}; }
  double polling_s() const override { return 0.0; }

  void pass(double seconds, double towards_c) {
    for (double& celsius : celsius_) {
      celsius = towards_c + (celsius - towards_c) * std::exp(-seconds / kTau);
    }
  }
  static constexpr double kCool = 30.0;
  std::vector<Burn> burns;
  Burn kept = Burn::nobody;
  std::function<Reading(std::size_t, Reading)> disturb;

 private:
  std::vector<double> hot_c_;
  std::vector<double> celsius_;
  std::optional<double> request_w_;
  double seconds_ = 0.0;
};

std::vector<Reading> at(double seconds, double celsius, double mhz) {
  return {{.time_ns = static_cast<Nanoseconds>(1e9 * seconds),
           .sm_clock_mhz = mhz,
           .power_w = 0.0,
           .temperature_c = celsius,
           .throttle_reasons = 0}};
}

/// A minute of readings every 3 s, temperature and clock as functions of time.
Verdict minute(const std::function<double(double)>& celsius,
               const std::function<double(double)>& mhz, double seconds = 60.0) {
  SteadyWindow window({});
  for (double s = 0.0; s <= seconds; s += 3.0) {
    window.add(at(s, celsius(s), mhz(s)));
  }
  return window.judge().front();
}

const auto kFlat = [](double) { return 1500.0; };

TEST(SteadyWindow, SlopeIsDegreesAMinute) {
  const auto verdict = minute([](double s) { return 50.0 + 0.05 * s; }, kFlat);
  EXPECT_NEAR(verdict.slope_c_min, 3.0, 1e-9);
  EXPECT_FALSE(verdict.steady);
  EXPECT_TRUE(minute([](double s) { return 50.0 + 0.99 / 60 * s; }, kFlat).steady);
  EXPECT_FALSE(minute([](double s) { return 50.0 + 1.01 / 60 * s; }, kFlat).steady);
  EXPECT_FALSE(minute([](double s) { return 50.0 - 1.01 / 60 * s; }, kFlat).steady) << "cooling";
}

TEST(SteadyWindow, AClockThatMovesIsNotSteady) {
  const auto warm = [](double) { return 60.0; };
  const auto steps = [](double low) { return [low](double s) { return s < 30.0 ? 1500.0 : low; }; };
  EXPECT_TRUE(minute(warm, steps(1493.0)).steady) << "0.47 %";
  EXPECT_FALSE(minute(warm, steps(1492.0)).steady) << "0.53 %";
}

TEST(SteadyWindow, SaysNothingBeforeItIsFull) {
  const auto verdict = minute([](double) { return 60.0; }, kFlat, 57.0);
  EXPECT_FALSE(verdict.steady);
  EXPECT_TRUE(std::isnan(verdict.slope_c_min));
}

TEST(SteadyWindow, ForgetsWhatIsOlderThanTheWindow) {
  SteadyWindow window({});
  for (double s = 0.0; s <= 600.0; s += 3.0) {
    window.add(at(s, s < 500.0 ? 30.0 + 0.06 * s : 60.0, 1500.0));
  }
  EXPECT_TRUE(window.judge().front().steady);
}

TEST(SteadyWindow, UnreadableIsNotSteady) {
  EXPECT_FALSE(minute([](double) { return timeline::kUnknown; }, kFlat).steady);
  EXPECT_FALSE(
      minute([](double) { return 60.0; }, [](double) { return timeline::kUnknown; }).steady);
}

TEST(Heat, SoakedIsReachedWhenTheSlopeSaysSo) {
  ScriptedPlant plant({70.0, 62.0});
  const auto report = bring_to(plant, study::Heat::soaked, {});
  EXPECT_TRUE(report.steady());
  // slope at the window's middle: 40 K / 40 s × exp(-t / 40 s) × 60 s/min < 1 °C/min at t = 164 s,
  // and the window ends 30 s later
  EXPECT_NEAR(report.seconds, 194.0, 12.0);
  std::printf("soaked after %.0f s, slopes %.2f and %.2f degC/min\n", report.seconds,
              report.devices[0].slope_c_min, report.devices[1].slope_c_min);
  for (const auto burn : plant.burns) {
    EXPECT_EQ(burn, Burn::fleet);
  }
}

TEST(Heat, TheLimitComesFirst) {
  ScriptedPlant plant({70.0, 62.0});
  const auto report = bring_to(plant, study::Heat::soaked, {.limit_s = 100.0});
  EXPECT_FALSE(report.steady());
  EXPECT_GE(report.seconds, 100.0);
  EXPECT_LE(report.seconds, 103.1);
}

TEST(Heat, OneRestlessDeviceIsNamedByItsVerdict) {
  ScriptedPlant plant({70.0, 62.0});
  plant.disturb = [](std::size_t i, Reading reading) {
    if (i == 1) {
      reading.sm_clock_mhz = reading.time_ns / 1'000'000'000 % 60 < 30 ? 1500.0 : 1000.0;
    }
    return reading;
  };
  const auto report = bring_to(plant, study::Heat::soaked, {.limit_s = 303.0});
  EXPECT_TRUE(report.devices[0].steady);
  EXPECT_FALSE(report.devices[1].steady);
}

TEST(Heat, WhoBurns) {
  ScriptedPlant plant({70.0});
  (void)bring_to(plant, study::Heat::ambient, {});
  EXPECT_EQ(plant.burns.back(), Burn::nobody);
  (void)bring_to(plant, study::Heat::neighbours, {});
  EXPECT_EQ(plant.burns.back(), Burn::neighbours);
}

TEST(Heat, WithoutATemperatureThereIsNoHeat) {
  ScriptedPlant plant({70.0});
  plant.disturb = [](std::size_t, Reading reading) {
    reading.temperature_c = timeline::kUnknown;
    return reading;
  };
  EXPECT_THROW(bring_to(plant, study::Heat::soaked, {}), mpi::SharedError);
}

TEST(Keeper, BurnsAgainWhatHasCooled) {
  ScriptedPlant plant({70.0});
  Keeper keeper(plant, "observe", "stand-in", {});
  keeper.enter({450.0, study::Heat::soaked});
  const double plateau = plant.read().front().temperature_c;
  plant.burns.clear();
  EXPECT_NEAR(keeper.settle().devices[0].temperature_c, plateau, 1e-9) << "nothing to do";
  EXPECT_TRUE(plant.burns.empty());

  plant.pass(20.0, ScriptedPlant::kCool);
  const auto state = keeper.settle();
  EXPECT_FALSE(plant.burns.empty());
  EXPECT_NEAR(state.devices[0].temperature_c, plateau, 1.0);
  EXPECT_TRUE(state.devices[0].steady);
  EXPECT_EQ(state.caps, "observe");
  EXPECT_EQ(state.devices[0].cap.requested_w, 450.0);
}

TEST(Keeper, NeighboursBurnUntilTheNextCondition) {
  ScriptedPlant plant({70.0});
  Keeper keeper(plant, "observe", "stand-in", {});
  keeper.enter({{}, study::Heat::neighbours});
  EXPECT_EQ(plant.kept, Burn::neighbours);
  (void)keeper.settle();
  EXPECT_EQ(plant.kept, Burn::neighbours);
  keeper.enter({{}, study::Heat::soaked});
  EXPECT_EQ(plant.kept, Burn::nobody);
}

TEST(Keeper, CoolsAgainForAmbient) {
  ScriptedPlant plant({70.0});
  Keeper keeper(plant, "observe", "stand-in", {});
  keeper.enter({{}, study::Heat::ambient});
  plant.pass(30.0, 70.0);
  plant.burns.clear();
  EXPECT_LE(keeper.settle().devices[0].temperature_c, ScriptedPlant::kCool + 1.0);
  ASSERT_FALSE(plant.burns.empty());
  EXPECT_EQ(plant.burns.front(), Burn::nobody);
}

TEST(NoteSteps, TakesTheLatestReadingAtEachStepsEnd) {
  timeline::Telemetry telemetry;
  telemetry.series = {{{.time_ns = 0, .sm_clock_mhz = 1.0},
                       {.time_ns = 100, .sm_clock_mhz = 2.0},
                       {.time_ns = 200, .sm_clock_mhz = 3.0, .throttle_reasons = 4}}};
  note_steps(std::vector<Nanoseconds>{-5, 99, 100, 150, 1000}, telemetry);
  const auto row = telemetry.step_sm_clock_mhz.row(0);
  EXPECT_EQ(std::vector<double>(row.begin(), row.end()), (std::vector<double>{1, 1, 2, 2, 3}));
  EXPECT_EQ(telemetry.step_throttle_reasons(0, 4), 4U);
  timeline::Telemetry none;
  note_steps(std::vector<Nanoseconds>{1}, none);
  EXPECT_TRUE(none.step_sm_clock_mhz.empty());
  // a sensor that never answered leaves its row, so that the others keep theirs
  telemetry.series.emplace_back();
  note_steps(std::vector<Nanoseconds>{100, 200}, telemetry);
  ASSERT_EQ(telemetry.step_sm_clock_mhz.extent(0), 2U);
  EXPECT_EQ(telemetry.step_sm_clock_mhz(0, 1), 3.0);
  EXPECT_TRUE(std::isnan(telemetry.step_sm_clock_mhz(1, 1)));
}

}  // namespace
}  // namespace moevar::conditions
