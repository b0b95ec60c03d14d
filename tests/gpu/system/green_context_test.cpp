#include "system/green_context.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include "gpu_test.hpp"
#include "where_blocks_run.hpp"

namespace moevar::cuda {
namespace {

class GreenContextTest : public GpuTest {
 protected:
  /// The SMs that blocks ran on; checks that none was lost.
  static std::set<int> sms_of(const DeviceArray<int>& counts, const Stream& stream, int blocks) {
    std::vector<int> host(kMostSms);
    to_host(static_cast<const int*>(counts.data()), std::span(host), stream);
    stream.synchronise();
    EXPECT_EQ(std::accumulate(host.begin(), host.end(), 0), blocks);
    std::set<int> sms;
    for (int sm = 0; sm < kMostSms; ++sm) {
      if (host[static_cast<std::size_t>(sm)] > 0) {
        sms.insert(sm);
      }
    }
    return sms;
  }
};

TEST_F(GreenContextTest, PartsKeepToTheirSmsAndShareNone) {
  const std::vector wanted{8, 24, 15};
  const auto parts = split(wanted);
  ASSERT_EQ(parts.size(), wanted.size());
  std::vector<DeviceArray<int>> counts;
  const int blocks = 8 * sm_count();  // several times what fits at once: every SM gets some
  for (const auto& part : parts) {
    const auto& array = counts.emplace_back(kMostSms);
    MOEVAR_CUDA(cudaMemsetAsync(array.data(), 0, array.bytes(), part.stream.raw()));
    count_blocks_by_sm(blocks, 100, array.data(), part.stream);
  }
  std::set<int> seen;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    EXPECT_GE(parts[i].sms, wanted[i]);
    const auto sms = sms_of(counts[i], parts[i].stream, blocks);
    EXPECT_EQ(static_cast<int>(sms.size()), parts[i].sms);
    for (const int sm : sms) {
      EXPECT_TRUE(seen.insert(sm).second) << "SM " << sm << " is in two parts";
    }
  }
  RecordProperty("sms_0", parts[0].sms);
  RecordProperty("sms_1", parts[1].sms);
  RecordProperty("sms_2", parts[2].sms);
}

TEST_F(GreenContextTest, EventsOrderPartsAndTimeThem) {
  const auto parts = split(std::vector{8, 8});
  const Event before;
  const Event after;
  const DeviceArray<int> counts(kMostSms);
  MOEVAR_CUDA(cudaMemsetAsync(counts.data(), 0, counts.bytes(), parts[0].stream.raw()));
  before.record(parts[0].stream);
  count_blocks_by_sm(8, 2000, counts.data(), parts[0].stream);
  after.record(parts[0].stream);
  after.hold(parts[1].stream);
  const auto sms = sms_of(counts, parts[1].stream, 8);  // copied on the other part's stream
  EXPECT_LE(static_cast<int>(sms.size()), parts[0].sms);
  EXPECT_GE(after.us_since(before), 2000.0F);
}

TEST_F(GreenContextTest, GraphsStayInTheirPart) {
  const auto parts = split(std::vector{16});
  const DeviceArray<int> counts(kMostSms);
  MOEVAR_CUDA(cudaMemsetAsync(counts.data(), 0, counts.bytes(), parts[0].stream.raw()));
  const int blocks = 8 * sm_count();
  const auto graph = Graph::of(
      parts[0].stream, [&] { count_blocks_by_sm(blocks, 50, counts.data(), parts[0].stream); });
  graph.launch(parts[0].stream);
  EXPECT_EQ(static_cast<int>(sms_of(counts, parts[0].stream, blocks).size()), parts[0].sms);
}

TEST_F(GreenContextTest, MoreThanThereIsIsAnErrorThatSaysWhatThereIs) {
  try {
    (void)split(std::vector{sm_count(), 8});
    FAIL() << "more SMs than the GPU has";
  } catch (const EnvironmentError& error) {
    EXPECT_NE(std::string_view(error.what()).find("this GPU gives"), std::string_view::npos)
        << error.what();
  }
}

TEST_F(GreenContextTest, PartsComeBackWhenTheyAreGone) {
  for (int round = 0; round < 20; ++round) {
    const auto parts = split(std::vector{8, 16, 32});
    EXPECT_EQ(parts.size(), 3U);
  }
}

}  // namespace
}  // namespace moevar::cuda
