#include "burn/burn_cuda.hpp"

#include <chrono>
#include <cmath>
#include <ctime>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "burn/burn_kernels.hpp"
#include "gpu_test.hpp"
#include "system/cublas_lt.hpp"

namespace moevar::burn {
namespace {

class BurnCuda : public GpuTest {
 protected:
  void set_up() override {
    if (!cublas_lt::available()) {
      GTEST_SKIP() << cublas_lt::why_unavailable();
    }
  }
};

double seconds_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

TEST_F(BurnCuda, MatricesAreRandom) {
  constexpr std::size_t kCount = 1'000'003;
  const cuda::Stream stream;
  const cuda::DeviceArray<BFloat16> matrix(kCount);
  fill_with_normals(1, matrix.data(), kCount, stream);
  std::vector<BFloat16> values(kCount);
  cuda::to_host(matrix.data(), std::span<BFloat16>(values), stream);
  stream.synchronise();
  double sum = 0.0;
  double squares = 0.0;
  for (const BFloat16 value : values) {
    sum += static_cast<double>(value.value());
    squares += static_cast<double>(value.value()) * static_cast<double>(value.value());
  }
  EXPECT_NEAR(sum / kCount, 0.0, 4.0 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1.0, 0.01);
}

/// Half the duty is about half the work: a GPU that rests may run at a higher clock.
TEST_F(BurnCuda, DutyIsTheShareOfTime) {
  Burner burner(4096);
  (void)burner.run(0.3);  // clocks up
  const double product = 2.0 * std::pow(burner.size(), 3);
  const double all = burner.run(1.0);
  const double half = burner.run(1.0, 0.5);
  EXPECT_GT(all, 100.0 * product);
  EXPECT_NEAR(all / product, std::round(all / product), 1e-6);
  EXPECT_GT(half, 0.35 * all);
  EXPECT_LT(half, 0.75 * all);
}

TEST_F(BurnCuda, TheHostsCoreIsFreeMeanwhile) {
  Burner burner(4096);
  const double wall = seconds_of(CLOCK_MONOTONIC);
  const double processor = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
  burner.start();
  EXPECT_LT(seconds_of(CLOCK_MONOTONIC) - wall, 0.1);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_GT(burner.stop(), 0.0);
  EXPECT_LT(seconds_of(CLOCK_PROCESS_CPUTIME_ID) - processor, 0.3);
  EXPECT_LT(seconds_of(CLOCK_MONOTONIC) - wall, 1.5);
}

TEST_F(BurnCuda, StartsAndStopsAsAsked) {
  Burner burner(1024);
  EXPECT_EQ(burner.stop(), 0.0);
  EXPECT_THROW(burner.start(0.0), InputError);
  EXPECT_THROW(burner.start(1.1), InputError);
  EXPECT_THROW(burner.start(std::nan("")), InputError);
  burner.start(0.2);
  EXPECT_THROW(burner.start(), InputError);
  EXPECT_GE(burner.stop(), 0.0);
  EXPECT_GT(burner.run(0.1), 0.0);
  burner.start();  // the destructor stops it
}

}  // namespace
}  // namespace moevar::burn
