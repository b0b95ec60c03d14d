#include "fleet/draw.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "fleet/model_fleet.hpp"

namespace moevar::fleet {
namespace {

using study::Draw;

TEST(DrawDevices, SmallerFleetsAreNestedInLargerOnes) {
  for (const Draw draw : {Draw::nodes, Draw::devices}) {
    const auto all = draw_devices(5, 3, 64, 64, draw);
    for (const int count : {1, 2, 7, 8, 9, 63}) {
      const auto some = draw_devices(5, 3, 64, count, draw);
      ASSERT_EQ(some.size(), static_cast<std::size_t>(count));
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << count;
    }
  }
}

TEST(DrawDevices, TheWholePoolIsEveryDeviceOnce) {
  for (const Draw draw : {Draw::nodes, Draw::devices}) {
    auto all = draw_devices(1, 0, 64, 64, draw);
    std::ranges::sort(all);
    std::vector<DeviceId> expected(64);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(all, expected);
  }
}

TEST(DrawDevices, NodesStayWholeAndNeighboursTogether) {
  const auto all = draw_devices(2, 7, 128, 128, Draw::nodes);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i] / kGpusPerNode, all[i / 8 * 8] / kGpusPerNode);
    EXPECT_EQ(all[i] ^ 1, all[i ^ 1U]);
  }
}

TEST(DrawDevices, HangOnSeedAndNumber) {
  const auto one = draw_devices(1, 0, 64, 64, Draw::nodes);
  EXPECT_EQ(draw_devices(1, 0, 64, 64, Draw::nodes), one);
  EXPECT_NE(draw_devices(1, 1, 64, 64, Draw::nodes), one);
  EXPECT_NE(draw_devices(2, 0, 64, 64, Draw::nodes), one);
}

// The chance of a false alarm at 6 standard deviations is below 1e-6 for all 64 devices together.
TEST(DrawDevices, EveryDeviceIsAsLikely) {
  constexpr int kDraws = 8000;
  for (const Draw draw : {Draw::nodes, Draw::devices}) {
    for (const int count : {1, 2, 4}) {
      std::map<DeviceId, int> hits;
      for (int number = 0; number < kDraws; ++number) {
        for (const auto device : draw_devices(9, number, 64, count, draw)) {
          ++hits[device];
        }
      }
      ASSERT_EQ(hits.size(), 64U);
      const double expected = kDraws * count / 64.0;
      for (const auto& [device, times] : hits) {
        EXPECT_NEAR(times, expected, 6.0 * std::sqrt(expected)) << device;
      }
    }
  }
}

TEST(DrawDevices, RefusesWhatCannotBeDrawn) {
  EXPECT_THROW((void)draw_devices(1, 0, 64, 65, Draw::nodes), InputError);
  EXPECT_THROW((void)draw_devices(1, 0, 64, 0, Draw::devices), InputError);
  EXPECT_THROW((void)draw_devices(1, 0, 60, 8, Draw::nodes), InputError);
  EXPECT_EQ(draw_devices(1, 0, 60, 8, Draw::devices).size(), 8U);
}

TEST(DrawGpu, EqualGpusKeepTheirNoiseAlone) {
  const auto& family = find_family("h100-sxm5");
  std::set<double> noises;
  for (DeviceId g = 0; g < 20; ++g) {
    const auto real = draw_gpu(family, {}, 4, g);
    auto equal = draw_gpu(family, {.equal = true}, 4, g);
    EXPECT_EQ(equal.noise_sd, real.noise_sd);
    noises.insert(equal.noise_sd);
    equal.noise_sd = 0.0;
    const auto nominal = draw_gpu(family, {.homogeneous = true}, 4, g);
    EXPECT_EQ(solve_steady(family, equal, gemm_activity(), 500).clock_mhz,
              solve_steady(family, nominal, gemm_activity(), 500).clock_mhz);
    EXPECT_NE(solve_steady(family, real, gemm_activity(), 500).clock_mhz,
              solve_steady(family, nominal, gemm_activity(), 500).clock_mhz);
  }
  EXPECT_EQ(noises.size(), 20U);
}

}  // namespace
}  // namespace moevar::fleet
