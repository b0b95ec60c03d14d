#include "run/profiling.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>

#include <gtest/gtest.h>

#include "timeline/clock.hpp"

namespace moevar::run {
namespace {

const mpi::Communicator& world() {
  static const auto comm = mpi::Communicator::world();
  return comm;
}

constexpr std::size_t kLanes = 2;
constexpr std::size_t kCalls = kProfileRepeats + 1;

std::size_t fleet() { return kLanes * static_cast<std::size_t>(world().size()); }
DeviceId first() { return static_cast<DeviceId>(kLanes) * world().rank(); }

/// When each of a rank's devices was busy, and with which points.
struct Log {
  struct Call {
    double begin_ns = 0.0;
    double end_ns = 0.0;
    std::size_t lane = 0;
    std::size_t point = 0;
  };
  std::vector<Call> calls;

  TimeExperts timer() {
    return [this](std::span<const std::size_t> lanes, std::size_t point) {
      const auto begin = static_cast<double>(timeline::monotonic_raw_ns());
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      const auto end = static_cast<double>(timeline::monotonic_raw_ns());
      std::vector<double> us;
      for (const std::size_t lane : lanes) {
        calls.push_back({begin, end, lane, point});
        us.push_back(static_cast<double>(first()) + static_cast<double>(10 * point + lane) + 1.0);
      }
      return us;
    };
  }
};

ProfilePlan plan_of(study::ProfiledDevices which, std::vector<DeviceId> devices = {}) {
  return {{8.0, 16.0, 24.0}, which, std::move(devices)};
}

TEST(Profiling, TogetherEveryDeviceIsTimedAtEveryPoint) {
  Log log;
  const auto plan = plan_of(study::ProfiledDevices::together);
  const auto times = time_profile(world(), plan, first(), kLanes, fleet(), log.timer());
  EXPECT_EQ(log.calls.size(), kLanes * plan.grid.size() * kCalls);
  const auto models = models_of(world(), plan, times, fleet());
  ASSERT_EQ(models.size(), fleet());
  for (std::size_t d = 0; d < models.size(); ++d) {
    const auto device = static_cast<double>(d) + 1.0;
    EXPECT_TRUE(std::ranges::equal(models[d].times(),
                                   std::vector<double>{0.0, device, device + 10, device + 20}));
    EXPECT_EQ(models[d].measurement().upper_us.size(), plan.grid.size());
  }
}

TEST(Profiling, AloneNoTwoDevicesAreBusyAtOnce) {
  Log log;
  const auto plan = plan_of(study::ProfiledDevices::alone);
  const auto times = time_profile(world(), plan, first(), kLanes, fleet(), log.timer());
  EXPECT_EQ(log.calls.size(), kLanes * plan.grid.size() * kCalls);
  EXPECT_EQ(models_of(world(), plan, times, fleet()).size(), fleet());
  // each device's begin and end; ranks are of one node, whose clock is one
  std::vector<double> mine;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    const auto of_lane = [&](const Log::Call& call) { return call.lane == lane; };
    const auto begin = std::ranges::find_if(log.calls, of_lane);
    const auto last = std::find_if(log.calls.rbegin(), log.calls.rend(), of_lane);
    mine.push_back(begin->begin_ns);
    mine.push_back(last->end_ns);
  }
  std::vector<double> all(2 * fleet());
  world().all_gather(mine, all);
  EXPECT_TRUE(std::ranges::is_sorted(all)) << "a device began before the one before it was done";
}

TEST(Profiling, AloneOnlyThoseThatAreAskedForWork) {
  Log log;
  const auto last = static_cast<DeviceId>(fleet()) - 1;
  const auto plan = plan_of(study::ProfiledDevices::alone, {last});
  const auto times = time_profile(world(), plan, first(), kLanes, fleet(), log.timer());
  const bool mine = world().rank() == world().size() - 1;
  EXPECT_EQ(log.calls.size(), mine ? plan.grid.size() * kCalls : 0U);
  const auto models = models_of(world(), plan, times, fleet());
  ASSERT_EQ(models.size(), 1U);
  EXPECT_EQ(models.front().times()[1], static_cast<double>(fleet()));
}

}  // namespace
}  // namespace moevar::run
