#include "conditions/nvml_plant.hpp"

#include <chrono>
#include <cmath>
#include <thread>

#include <gtest/gtest.h>

#include "fake_gpus.hpp"

namespace moevar::conditions {
namespace {

using fake_nvml::FakeGpus;
using study::CapMode;

class Plant : public testing::Test {
 protected:
  /// Rank 0's fake GPUs are everyone's.
  static void SetUpTestSuite() {
    const auto world = mpi::Communicator::world();
    std::string state;
    if (world.is_root()) {
      FakeGpus::only();
      state = std::getenv("MOEVAR_FAKE_NVML_STATE");
    }
    world.broadcast(state);
    ::setenv("MOEVAR_NVML", MOEVAR_FAKE_NVML_LIBRARY, 1);
    ::setenv("MOEVAR_FAKE_NVML_STATE", state.c_str(), 1);
    const auto folder = std::filesystem::path(state).parent_path() / "state";
    ::setenv("MOEVAR_STATE_DIR", folder.c_str(), 1);
  }
  void SetUp() override {
    on_root([] { FakeGpus::only().reset(); });
  }

  static void on_root(const std::function<void()>& work) {
    const auto world = mpi::Communicator::world();
    world.barrier();
    if (world.is_root()) {
      work();
    }
    world.barrier();
  }

  [[nodiscard]] NvmlPlant make(CapMode mode, int devices) const {
    GuardOptions options;
    options.program = MOEVAR_BINARY;
    options.patience = std::chrono::milliseconds(300);
    return {world,
            devices,
            FakeGpus::uuid(world.rank()),
            mode,
            "test",
            [](double s) { std::this_thread::sleep_for(std::chrono::duration<double>(s)); },
            options};
  }

  mpi::Communicator world = mpi::Communicator::world();
};

/// Every rank throws, and for the same reason.
template <class Work>
void expect_all_throw(ExitStatus status, const std::string& part, const Work& work) {
  try {
    work();
    ADD_FAILURE() << "nothing was thrown: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST_F(Plant, SetsAndGivesBack) {
  {
    auto plant = make(CapMode::set, world.size());
    EXPECT_TRUE(std::isnan(plant.caps()[0].requested_w)) << "nothing was asked for yet";
    plant.set_cap(450.0);
    const auto caps = plant.caps();
    ASSERT_EQ(caps.size(), static_cast<std::size_t>(world.size()));
    for (const auto& cap : caps) {
      EXPECT_EQ(cap.requested_w, 450.0);
      EXPECT_EQ(cap.enforced_w, 450.0);
      EXPECT_EQ(cap.default_w, 700.0);
      EXPECT_EQ(cap.min_w, 200.0);
    }
    plant.set_cap(std::nullopt);
    EXPECT_EQ(plant.caps()[0].enforced_w, 700.0);
    plant.set_cap(300.0);
    on_root([] { EXPECT_EQ(FakeGpus::only().gpu(0).requested_mw, 300'000U); });
    on_root([] { FakeGpus::only().gpu(0).revert_ms = 1; });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const auto changes = plant.watch();
    ASSERT_EQ(changes.size(), 1U);
    EXPECT_NE(changes[0].find("from 300 to 700 W"), std::string::npos) << changes[0];
    on_root([] { FakeGpus::only().gpu(0).revert_ms = 0; });
  }
  on_root([this] {
    for (int i = 0; i < world.size(); ++i) {
      EXPECT_EQ(FakeGpus::only().gpu(i).requested_mw, 700'000U);
    }
  });
}

TEST_F(Plant, OutOfRangeIsRefusedBeforeAnythingIsWritten) {
  auto plant = make(CapMode::set, world.size());
  on_root([this] { FakeGpus::only().gpu(world.size() - 1).min_mw = 400'000; });
  std::uint64_t before = 0;
  on_root([&] { before = FakeGpus::only().gpu(0).writes; });
  expect_all_throw(ExitStatus::bad_input, "outside what the device accepts, 400 to 700 W",
                   [&] { plant.set_cap(300.0); });
  on_root([&] { EXPECT_EQ(FakeGpus::only().gpu(0).writes, before); });
}

TEST_F(Plant, VerifyRefusesAnotherLimitAndNeverWrites) {
  auto plant = make(CapMode::verify, world.size());
  plant.set_cap(700.0);
  plant.set_cap(std::nullopt);
  on_root([this] { FakeGpus::only().gpu(world.size() - 1).requested_mw = 650'000; });
  expect_all_throw(ExitStatus::environment, "the study wants 700 W, 650 W is enforced",
                   [&] { plant.set_cap(700.0); });
  on_root([] { EXPECT_EQ(FakeGpus::only().gpu(0).writes, 0U); });
}

TEST_F(Plant, ObserveTakesNoteAndNeverWrites) {
  auto plant = make(CapMode::observe, world.size());
  plant.set_cap(500.0);
  EXPECT_EQ(plant.caps()[0].requested_w, 500.0);
  EXPECT_EQ(plant.caps()[0].enforced_w, 700.0);
  on_root([] { EXPECT_EQ(FakeGpus::only().gpu(0).writes, 0U); });
}

TEST_F(Plant, RefusesWhatAnotherHolds) {
  const auto first = make(CapMode::set, 1);
  for (const auto mode : {CapMode::set, CapMode::observe, CapMode::verify}) {
    expect_all_throw(ExitStatus::environment, "is held by process", [&] { (void)make(mode, 1); });
  }
}

TEST_F(Plant, RefusesOneGpuForTwoRanks) {
  if (world.size() < 2) {
    GTEST_SKIP() << "needs two ranks";
  }
  expect_all_throw(ExitStatus::environment, "ranks 0 and 1 have the same GPU", [&] {
    const NvmlPlant plant(world, 1, FakeGpus::uuid(world.rank() / 2), CapMode::observe, "test",
                          [](double) {});
  });
}

TEST_F(Plant, NeighboursBurnAndTheFleetIsMeasured) {
  auto plant = make(CapMode::observe, 1);
  if (world.size() == 1) {
    expect_all_throw(ExitStatus::environment, "neighbours",
                     [&] { plant.work(0.01, Burn::neighbours); });
    return;
  }
  plant.work(0.2, Burn::neighbours);
  EXPECT_NEAR(plant.read()[0].temperature_c, 30.0, 0.5);
  on_root([] {
    const auto now = fake_nvml::now_ns();
    EXPECT_LT(temperature_mc(FakeGpus::only().gpu(0), now), 30'001.0);
    EXPECT_GT(temperature_mc(FakeGpus::only().gpu(1), now), 31'000.0);
  });
}

TEST_F(Plant, TheFleetBurnsAndCounts) {
  auto plant = make(CapMode::set, world.size());
  plant.set_cap(400.0);
  const auto before = plant.count();
  plant.work(0.5, Burn::fleet);
  const auto after = plant.count();
  const auto readings = plant.read();
  ASSERT_EQ(after.size(), static_cast<std::size_t>(world.size()));
  for (std::size_t d = 0; d < after.size(); ++d) {
    // at the cap all the time, and then some while at rest
    EXPECT_NEAR(after[d].energy_mj - before[d].energy_mj, 0.5 * 400e3, 0.15 * 400e3);
    EXPECT_NEAR(after[d].sw_power_cap_ns - before[d].sw_power_cap_ns, 0.5e9, 0.15e9);
    EXPECT_TRUE(std::isnan(after[d].hw_thermal_ns)) << "the fake does not tell";
    EXPECT_GT(readings[d].temperature_c, 33.0);
    EXPECT_EQ(readings[d].throttle_reasons & timeline::reason::gpu_idle,
              timeline::reason::gpu_idle);
  }
}

TEST_F(Plant, TelemetryGivesEveryRankItsOwn) {
  const int devices = std::max(1, world.size() / 2);
  auto plant = make(CapMode::observe, devices);
  on_root([] {
    FakeGpus::only().gpu(0).idle_mw = 70'000;
    FakeGpus::only().gpu(1).idle_mw = 71'000;
  });
  plant.start_telemetry(50.0);
  plant.work(0.5, Burn::nobody);
  const auto mine = plant.stop_telemetry();
  const bool in_fleet = world.rank() < devices;
  ASSERT_EQ(mine.size(), in_fleet ? 1U : 0U);
  if (in_fleet) {
    EXPECT_GT(mine[0].size(), 10U);
    EXPECT_LT(mine[0].size(), 40U);
    for (std::size_t i = 0; i < mine[0].size(); ++i) {
      EXPECT_GT(mine[0][i].time_ns, i == 0 ? 0 : mine[0][i - 1].time_ns);
      EXPECT_EQ(mine[0][i].power_w, world.rank() == 1 ? 71.0 : 70.0);
    }
  }
  const auto cost = plant.telemetry_cost();
  EXPECT_EQ(cost.wall_s > 0.4, world.is_root());
  EXPECT_LT(cost.cpu_s, 0.1);
  // again, and a GPU that is lost is NaN, not the end
  on_root([] { FakeGpus::only().gpu(0).lost = 1; });
  plant.start_telemetry(50.0);
  plant.work(0.1, Burn::nobody);
  const auto lost = plant.stop_telemetry();
  if (world.is_root()) {
    ASSERT_FALSE(lost[0].empty());
    EXPECT_TRUE(std::isnan(lost[0][0].power_w));
  }
  EXPECT_TRUE(std::isnan(plant.caps()[0].enforced_w));
}

}  // namespace
}  // namespace moevar::conditions
