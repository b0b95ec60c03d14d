#include "run/cuda_fleet.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::run {
namespace {

std::vector<DeviceIdentity> two_gpus() {
  return {{.device = 0, .kind = "cuda", .uuid = "GPU-a", .name = "H", .host = "n", .slot = 0},
          {.device = 1,
           .kind = "cuda",
           .uuid = "GPU-b",
           .name = "H",
           .host = "n",
           .slot = 1,
           .rank = 1}};
}

TEST(CudaFleet, GpusAreDevices) {
  const auto devices = devices_of_gpus(two_gpus(), {});
  ASSERT_EQ(devices.size(), 2U);
  EXPECT_EQ(devices[1].uuid, "GPU-b");
  EXPECT_EQ(devices[1].name, "H");
}

TEST(CudaFleet, PartsAreDevicesThatSaySo) {
  const auto devices = devices_of_gpus(two_gpus(), {24, 32, 64});
  ASSERT_EQ(devices.size(), 6U);
  for (std::size_t d = 0; d < 6; ++d) {
    EXPECT_EQ(devices[d].device, static_cast<DeviceId>(d));
    EXPECT_EQ(devices[d].slot, static_cast<int>(d));
    EXPECT_EQ(devices[d].rank, static_cast<int>(d) / 3);
    EXPECT_NE(devices[d].name.find("emulated"), std::string::npos);
    for (std::size_t other = 0; other < d; ++other) {
      EXPECT_NE(devices[d].uuid, devices[other].uuid);
    }
  }
  EXPECT_EQ(devices[4].uuid, "GPU-b:part1");
  EXPECT_NE(devices[4].name.find("32 SMs"), std::string::npos);
}

TEST(CudaFleet, RanksHaveToSuffice) {
  EXPECT_EQ(ranks_of_devices(4, 1, 4), 4);
  EXPECT_EQ(ranks_of_devices(4, 4, 2), 1);
  EXPECT_THROW(ranks_of_devices(6, 4, 8), InputError);
  EXPECT_THROW(ranks_of_devices(8, 4, 1), EnvironmentError);
}

}  // namespace
}  // namespace moevar::run
