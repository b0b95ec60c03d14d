#include "device_clock/device_clock_cuda.hpp"

#include <array>
#include <chrono>
#include <ctime>
#include <optional>
#include <thread>

#include "gpu_test.hpp"

namespace moevar::device_clock {
namespace {

Nanoseconds host_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<Nanoseconds>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

class DeviceClockCuda : public GpuTest {
 protected:
  void set_up() override { stream_.emplace(); }
  [[nodiscard]] const cuda::Stream& stream() const { return *stream_; }

 private:
  std::optional<cuda::Stream> stream_;
};

TEST_F(DeviceClockCuda, StepIsThatOfATimer) {
  const Calibrator calibrator(stream());
  EXPECT_GE(calibrator.step_ns(), 1);
  EXPECT_LE(calibrator.step_ns(), 1'000'000);
  RecordProperty("step_ns", std::to_string(calibrator.step_ns()));
}

TEST_F(DeviceClockCuda, AStampTakesMicroseconds) {
  const double cost_ns = stamp_cost_ns(stream());
  EXPECT_GT(cost_ns, 0.0);
  EXPECT_LT(cost_ns, 100'000.0);
  RecordProperty("stamp_cost_ns", std::to_string(cost_ns));
}

/// A stamp, put on the host's clock, lies between the host's readings before and after it.
TEST_F(DeviceClockCuda, StampsLieWithinTheHostsOwnReadings) {
  Calibrator calibrator(stream());
  const cuda::PinnedArray<std::uint64_t> word(1);
  const Offset first = calibrator.calibrate(stream(), host_ns);
  struct Seen {
    Nanoseconds before, stamped, after;
  };
  std::array<Seen, 20> all{};
  for (Seen& seen : all) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    seen.before = host_ns();
    stamp(word.data(), stream());
    stream().synchronise();
    seen.after = host_ns();
    seen.stamped = static_cast<Nanoseconds>(*word.data());
  }
  const DeviceClock clock = between(first, calibrator.calibrate(stream(), host_ns));
  EXPECT_LE(clock.residual_ns, 20'000 + clock.step_ns);
  EXPECT_LE(std::abs(clock.slope), 1e-3);
  for (const Seen& seen : all) {
    const Nanoseconds margin = clock.residual_ns + clock.step_ns;
    EXPECT_GE(clock.to_host(seen.stamped), seen.before - margin);
    EXPECT_LE(clock.to_host(seen.stamped), seen.after + margin);
  }
  RecordProperty("residual_ns", std::to_string(clock.residual_ns));
  RecordProperty("min_round_trip_ns", std::to_string(clock.min_round_trip_ns));
}

/// Two stamps around work of a known length, by events as well.
TEST_F(DeviceClockCuda, StampsAgreeWithEvents) {
  const cuda::DeviceArray<std::uint64_t> words(2);
  const cuda::DeviceArray<std::byte> memory(std::size_t{256} << 20U);
  const cuda::Event before;
  const cuda::Event after;
  const auto graph = cuda::Graph::of(stream(), [&] {
    stamp(words.data(), stream());
    for (int i = 0; i < 50; ++i) {
      MOEVAR_CUDA(cudaMemsetAsync(memory.data(), i, memory.bytes(), stream().raw()));
    }
    stamp(words.data() + 1, stream());
  });
  graph.launch(stream());
  before.record(stream());
  graph.launch(stream());
  after.record(stream());
  std::array<std::uint64_t, 2> stamps{};
  cuda::to_host(words.data(), std::span<std::uint64_t>(stamps), stream());
  stream().synchronise();
  const double by_events = 1e3 * static_cast<double>(after.us_since(before));
  const auto by_stamps = static_cast<double>(stamps[1] - stamps[0]);
  const auto step = static_cast<double>(Calibrator(stream()).step_ns());
  EXPECT_NEAR(by_stamps, by_events, 0.02 * by_events + 30'000.0 + 2.0 * step);
}

}  // namespace
}  // namespace moevar::device_clock
