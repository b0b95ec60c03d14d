#include "burn/burn.hpp"

#include <ctime>

#include <gtest/gtest.h>

namespace moevar::burn {
namespace {

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double wall_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

TEST(Burn, LastsAsLongAsAskedAndWorksThroughout) {
  const double wall = wall_seconds();
  const double processor = processor_seconds();
  const auto flops = burn_cpu(0.3, 128);
  EXPECT_GE(wall_seconds() - wall, 0.3);
  EXPECT_GT(flops, std::int64_t{2} * 128 * 128 * 128);
  EXPECT_EQ(flops % (std::int64_t{2} * 128 * 128 * 128), 0);
  EXPECT_GT(processor_seconds(), processor);
}

TEST(Burn, OnceAtLeast) { EXPECT_EQ(burn_cpu(0.0, 64), std::int64_t{2} * 64 * 64 * 64); }

}  // namespace
}  // namespace moevar::burn
