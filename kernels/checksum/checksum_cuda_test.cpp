#include "checksum/checksum_cuda.hpp"

#include <vector>

#include "checksum/checksum.hpp"
#include "gpu_test.hpp"

namespace moevar::checksum {
namespace {

using ChecksumCudaTest = GpuTest;

TEST_F(ChecksumCudaTest, EqualsTheHosts) {
  constexpr std::size_t kMost = (std::size_t{1} << 22U) + 77;
  std::vector<BFloat16> values(kMost);
  for (std::size_t i = 0; i < kMost; ++i) {
    values[i].bits = static_cast<std::uint16_t>(RandomKey(4)[i].bits());
  }
  const cuda::Stream stream;
  const cuda::DeviceArray<BFloat16> device(kMost);
  const cuda::DeviceArray<std::uint64_t> sums(1);
  cuda::to_device(std::span<const BFloat16>(values), device.data(), stream);
  for (const std::size_t offset : {0U, 1U, 3U, 8U}) {
    for (const std::size_t count :
         {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{9}, std::size_t{255},
          std::size_t{8192}, std::size_t{8193}, std::size_t{1000003}, kMost - 8}) {
      std::uint64_t sum = 1;
      sum_cuda(device.data() + offset, count, sums.data(), stream);
      cuda::to_host(static_cast<const std::uint64_t*>(sums.data()), std::span(&sum, 1), stream);
      stream.synchronise();
      EXPECT_EQ(sum, sum_cpu(std::span(values).subspan(offset, count))) << offset << ' ' << count;
    }
  }
}

TEST_F(ChecksumCudaTest, CanBePartOfAGraph) {
  constexpr std::size_t kCount = 100000;
  std::vector<BFloat16> values(kCount, BFloat16{0x3F80});
  const cuda::Stream stream;
  const cuda::DeviceArray<BFloat16> device(kCount);
  const cuda::DeviceArray<std::uint64_t> sums(1);
  const auto graph =
      cuda::Graph::of(stream, [&] { sum_cuda(device.data(), kCount, sums.data(), stream); });
  for (std::size_t round = 0; round < 3; ++round) {
    values[round].bits = 0x4000;
    cuda::to_device(std::span<const BFloat16>(values), device.data(), stream);
    graph.launch(stream);
    std::uint64_t sum = 0;
    cuda::to_host(static_cast<const std::uint64_t*>(sums.data()), std::span(&sum, 1), stream);
    stream.synchronise();
    EXPECT_EQ(sum, sum_cpu(values));
  }
}

}  // namespace
}  // namespace moevar::checksum
