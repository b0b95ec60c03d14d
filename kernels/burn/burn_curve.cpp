/// What a GPU does when it is burnt: burn_curve SECONDS prints a CSV row a second for the GPU that
/// CUDA sees first: at rest for five seconds, under the dense bf16 product, at rest again.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "base/error.hpp"
#include "burn/burn_cuda.hpp"
#include "system/cuda.hpp"
#include "system/gpu.hpp"
#include "system/nvml.hpp"

namespace moevar::burn {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kTick(1);

class Curve {
 public:
  explicit Curve(const std::string& uuid)
      : device_(nvml::Device::find(uuid)), start_(Clock::now()) {
    const auto limits = device_.limits();
    fmt::print("# {} {}, limits min {} default {} max {} enforced {} W\n", device_.name(), uuid,
               limits.min / 1000, limits.normal / 1000, limits.max / 1000,
               device_.enforced_limit() / 1000);
    fmt::print(
        "time_s,load,sm_clock_mhz,power_w,mean_power_w,temperature_c,clock_reasons,energy_mj,"
        "sw_power_cap_ns,sw_thermal_ns,hw_thermal_ns\n");
  }

  void watch(const char* load, int seconds) {
    for (int i = 0; i < seconds; ++i) {
      std::this_thread::sleep_until(start_ + (++ticks_) * kTick);
      const auto now = device_.sensors();
      const auto counts = device_.counts();
      fmt::print("{},{},{},{},{},{},{:#x},{},{},{},{}\n", ticks_, load, now.sm_clock_mhz,
                 now.power_w, now.mean_power_w, now.temperature_c, now.clock_reasons,
                 counts.energy_mj, counts.sw_power_cap_ns, counts.sw_thermal_ns,
                 counts.hw_thermal_ns);
      std::fflush(stdout);
    }
  }

 private:
  nvml::Device device_;
  Clock::time_point start_;
  int ticks_ = 0;
};

int run(int seconds) {
  const auto gpus = gpu::visible();
  if (gpus.empty()) {
    throw EnvironmentError(gpu::why_none_visible());
  }
  cuda::use(gpus.front().ordinal);
  Curve curve(gpus.front().uuid);
  curve.watch("rest", 5);
  Burner burner;
  const auto begin = Clock::now();
  burner.start();
  curve.watch("gemm", seconds);
  const double flops = burner.stop();
  const double took_s = std::chrono::duration<double>(Clock::now() - begin).count();
  fmt::print("# {}^3 bf16: {:.1f} TFLOP/s over {:.1f} s\n", burner.size(), 1e-12 * flops / took_s,
             took_s);
  curve.watch("rest", 5);
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace moevar::burn

int main(int argc, char** argv) {
  try {
    return moevar::burn::run(argc > 1 ? std::atoi(argv[1]) : 120);
  } catch (const std::exception& error) {
    fmt::print(stderr, "burn_curve: {}\n", error.what());
    return 3;
  }
}
