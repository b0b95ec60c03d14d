#include "conditions/poller.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <new>
#include <sched.h>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "conditions/within.hpp"
#include "timeline/clock.hpp"

namespace moevar::conditions {

namespace {

double seconds_of(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// A thread inherits the one core that its rank is bound to; it belongs elsewhere: to where no rank
/// is, else anywhere. What the system refuses is no harm but to the cost of telemetry.
void run_beside(const std::vector<bool>& taken) {
  cpu_set_t all{};
  CPU_ZERO(&all);
  for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
    CPU_SET(core, &all);  // the system takes those away that may not be used
  }
  ::sched_setaffinity(0, sizeof all, &all);
  ::sched_getaffinity(0, sizeof all, &all);
  for (std::size_t core = 0; core < std::min<std::size_t>(taken.size(), CPU_SETSIZE); ++core) {
    if (taken[core]) {
      CPU_CLR(core, &all);
    }
  }
  if (CPU_COUNT(&all) > 0) {
    ::sched_setaffinity(0, sizeof all, &all);
  }
}

}  // namespace

/// What the thread and its owner share; it lives as long as either.
struct Poller::Shared {
  std::vector<nvml::Device> devices;
  std::chrono::nanoseconds period{};
  std::vector<bool> taken_cores;

  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  bool ended = false;
  Result result;

  void poll() {
    run_beside(taken_cores);
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    const double cpu_begin = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    auto next = begin;
    std::vector<std::vector<timeline::Reading>> readings(devices.size());
    std::unique_lock lock(mutex);
    do {  // one reading at least, however short the time
      lock.unlock();
      try {
        for (std::size_t d = 0; d < devices.size(); ++d) {
          readings[d].push_back(read_sensors(devices[d]));
        }
      } catch (const std::bad_alloc&) {
        // a reading less; thrown out of a thread, it would end the process where it stands
        for (auto& series : readings) {
          series.resize(std::min(series.size(), readings.back().size()));
        }
      }
      // the grid stays where it is; what was missed is not made up for
      for (const auto now = Clock::now(); next <= now;) {
        next += period;
      }
      lock.lock();
      changed.wait_until(lock, next, [this] { return stopping; });
    } while (!stopping);
    result = {std::move(readings), seconds_of(CLOCK_THREAD_CPUTIME_ID) - cpu_begin,
              std::chrono::duration<double>(Clock::now() - begin).count()};
    ended = true;
    changed.notify_all();
  }
};

timeline::Reading read_sensors(const nvml::Device& device) noexcept {
  timeline::Reading reading;
  reading.time_ns = timeline::monotonic_raw_ns();
  const auto sensors = device.sensors();
  reading.sm_clock_mhz = sensors.sm_clock_mhz;
  reading.power_w = sensors.power_w;
  reading.temperature_c = sensors.temperature_c;
  reading.throttle_reasons = sensors.clock_reasons;
  return reading;
}

Poller::Poller(std::vector<nvml::Device> devices, double hz, const std::vector<bool>& taken_cores)
    : shared_(std::make_shared<Shared>()) {
  shared_->devices = std::move(devices);
  shared_->period = std::chrono::nanoseconds(static_cast<std::int64_t>(1e9 / hz));
  shared_->taken_cores = taken_cores;
  try {
    std::thread([shared = shared_] { shared->poll(); }).detach();
  } catch (const std::system_error& error) {
    throw EnvironmentError(fmt::format("no thread for telemetry: {}", error.what()));
  }
}

Poller::~Poller() { stop(); }

Poller::Result Poller::stop() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  shared_->changed.notify_all();
  const bool ended = shared_->changed.wait_for(lock, kCallLimit, [this] { return shared_->ended; });
  return ended ? std::exchange(shared_->result, {}) : Result{};
}

}  // namespace moevar::conditions
