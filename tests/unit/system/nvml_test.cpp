#include "system/nvml.hpp"

#include <gtest/gtest.h>

#include "fake_gpus.hpp"

namespace moevar::nvml {
namespace {

using fake_nvml::FakeGpus;

class Nvml : public testing::Test {
 protected:
  void SetUp() override { FakeGpus::only().reset(); }
  FakeGpus& gpus_ = FakeGpus::only();
};

TEST_F(Nvml, AGpuIsFoundByIndexAndByUuid) {
  ASSERT_EQ(count(), 4U);
  EXPECT_EQ(uuids(), FakeGpus::uuids(4));
  for (unsigned index = 0; index < count(); ++index) {
    const auto device = Device::at(index);
    EXPECT_EQ(device.uuid(), FakeGpus::uuid(static_cast<int>(index)));
    EXPECT_EQ(Device::find(device.uuid()).index(), index);
    EXPECT_EQ(device.pci_address(), (pci::Address{0, 0x10 + index, 0}));
    EXPECT_EQ(pci::to_string(device.pci_address()), "0000:1" + std::to_string(index) + ":00.0");
  }
  EXPECT_THROW((void)Device::at(4), NvmlError);
}

TEST_F(Nvml, TellsWhatTheGpuIs) {
  EXPECT_EQ(driver_version(), "580.00.00");
  EXPECT_EQ(driver_supports_cuda(), 13000);
  gpus_.gpu(1).mig = 1;
  gpus_.gpu(2).mig = 2;
  gpus_.gpu(1).compute_mode = 3;
  gpus_.gpu(2).compute_mode = 9;
  EXPECT_EQ(Device::at(0).capability(), 90);
  EXPECT_EQ(Device::at(0).mig_mode(), false);
  EXPECT_EQ(Device::at(1).mig_mode(), true);
  EXPECT_EQ(Device::at(2).mig_mode(), std::nullopt) << "a GPU without MIG";
  EXPECT_EQ(Device::at(0).compute_mode(), ComputeMode::shared);
  EXPECT_EQ(Device::at(1).compute_mode(), ComputeMode::exclusive_process);
  EXPECT_EQ(Device::at(2).compute_mode(), std::nullopt) << "a mode of a later NVML";
}

TEST_F(Nvml, TellsWhoUsesIt) {
  EXPECT_EQ(Device::at(0).processes(), std::vector<Process>{});
  constexpr std::uint64_t kBytes = std::uint64_t{3} << 30U;
  gpus_.gpu(0).pid[1] = 4711;
  gpus_.gpu(0).process_bytes[1] = kBytes;
  gpus_.gpu(0).pid[3] = 4712;
  gpus_.gpu(0).process_bytes[3] = ~std::uint64_t{0};
  EXPECT_EQ(Device::at(0).processes(),
            (std::vector<Process>{{4711, kBytes}, {4712, std::nullopt}}));
  const auto memory = Device::at(0).memory();
  EXPECT_EQ(memory.total_bytes, std::uint64_t{80} << 30U);
  EXPECT_EQ(memory.free_bytes, std::uint64_t{77} << 30U);
}

TEST_F(Nvml, ALostGpuSaysSo) {
  gpus_.gpu(0).lost = 1;
  const auto device = Device::at(0);
  const auto lost = [](const auto& ask) {
    try {
      (void)ask();
    } catch (const NvmlError& error) {
      return error.kind() == Failure::lost;
    }
    return false;
  };
  EXPECT_TRUE(lost([&] { return device.memory(); }));
  EXPECT_TRUE(lost([&] { return device.processes(); }));
  EXPECT_TRUE(lost([&] { return device.pci_address(); }));
  EXPECT_EQ(device.compute_mode(), std::nullopt);
  gpus_.gpu(0).lost = 2;  // as drivers answer some time later
  EXPECT_TRUE(lost([] { return Device::at(0); }));
  EXPECT_EQ(count(), 4U);
  EXPECT_EQ(Device::at(1).memory().total_bytes, std::uint64_t{80} << 30U);
}

}  // namespace
}  // namespace moevar::nvml
