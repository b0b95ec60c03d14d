#include "placement/speeds_file.hpp"

#include "refused.hpp"

namespace moevar::placement {
namespace {

void refused(const std::string& text, const std::vector<std::string>& parts, int devices = 2) {
  expect_refused([&] { parse_speeds_csv(text, "s.csv", devices); }, parts);
  expect_refused([&] { parse_speeds_csv(text, "s.csv", devices); }, {"s.csv"});
}

TEST(SpeedsFile, CurvesPassThroughTheirRows) {
  const auto speeds = parse_speeds_csv(
      "latency_us, device ,tokens\r\n30,1,20\n\n10,0,10\n12,1,10\n25,0,20\n25,0,40\n", "s.csv", 2);
  ASSERT_EQ(speeds.size(), 2U);
  EXPECT_DOUBLE_EQ(speeds[0].time_us(10), 10);
  EXPECT_DOUBLE_EQ(speeds[0].time_us(15), 17.5);
  EXPECT_DOUBLE_EQ(speeds[0].time_us(30), 25);  // level is not falling
  EXPECT_DOUBLE_EQ(speeds[1].time_us(5), 6);
  EXPECT_DOUBLE_EQ(speeds[1].time_us(20), 30);
}

TEST(SpeedsFile, RelativeTimesAreMicrosecondsPerToken) {
  const auto speeds = parse_speeds_csv("device,relative_time\n1,1.25\n0,0.5\n", "s.csv", 2);
  EXPECT_DOUBLE_EQ(speeds[0].time_us(1000), 500);
  EXPECT_DOUBLE_EQ(speeds[1].time_us(1000), 1250);
}

TEST(SpeedsFile, AFleetsOtherColumnsAreSkipped) {
  const auto speeds = parse_speeds_csv(
      "device,node,slot,sm_clock_mhz,power_w,temperature_c,relative_time\n"
      "0,0,0,1700.5,700,65.1,1.02\n1,0,1,1710,699.9,64,0.99\n",
      "s.csv", 2);
  EXPECT_DOUBLE_EQ(speeds[0].time_us(100), 102);
  EXPECT_DOUBLE_EQ(speeds[1].time_us(100), 99);
}

TEST(SpeedsFile, AByteOrderMarkIsNoPartOfAName) {
  EXPECT_EQ(parse_speeds_csv("\xEF\xBB\xBF"
                             "device,relative_time\n0,1\n",
                             "s.csv", 1)
                .size(),
            1U);
}

TEST(SpeedsFile, EqualDevices) {
  const auto speeds = equal_speeds(3);
  ASSERT_EQ(speeds.size(), 3U);
  EXPECT_DOUBLE_EQ(speeds[2].time_us(17), 17);
}

TEST(SpeedsFile, TimesMustNotFallAsTokensRise) {
  refused("device,tokens,latency_us\n0,1,1\n0,64,9\n1,64,8\n1,128,7\n",
          {"row 5", "device 1", "7 µs for 128", "8 µs for 64 (row 4)", "do not fall"});
  refused("device,tokens,latency_us\n1,128,7\n0,1,1\n1,64,8\n", {"row 2", "do not fall"});
}

TEST(SpeedsFile, EachDeviceOnce) {
  const std::string header = "device,relative_time\n";
  refused(header + "0,1\n", {"no row for device 1", "2 devices, 0 to 1"});
  refused(header + "1,1\n", {"no row for device 0"});
  refused(header + "0,1\n1,1\n2,1\n", {"row 4", "device 2", "0 to 1"});
  refused(header + "0,1\n1,1\n0,1\n", {"row 4", "device 0 again", "row 2"});
  refused("device,tokens,latency_us\n0,1,1\n1,5,1\n1,5,2\n",
          {"row 4", "device 1 with 5 tokens again", "row 3"});
}

TEST(SpeedsFile, NumbersThatAreNone) {
  for (const char* value : {"x", "", "1.0.0", "1e", "0x10", "\"1\""}) {
    refused(std::string("device,relative_time\n0,1\n1,") + value + "\n",
            {"row 3", "relative_time is", "expected a number"});
  }
  for (const char* value : {"nan", "-1", "0", "inf", "-0"}) {
    refused(std::string("device,relative_time\n0,1\n1,") + value + "\n",
            {"row 3", "relative_time is", "above 0"});
    refused(std::string("device,tokens,latency_us\n0,1,1\n1,8,") + value + "\n",
            {"row 3", "latency_us is", "above 0"});
    refused(std::string("device,tokens,latency_us\n0,1,1\n1,") + value + ",8\n",
            {"row 3", "tokens is", "above 0"});
  }
  refused("device,relative_time\n0,1\n-1,1\n", {"row 3", "device is -1"});
  refused("device,relative_time\n0,1\n0.5,1\n", {"row 3", "device is \"0.5\"", "whole"});
  refused("device,relative_time\n0,1\n99999999999,1\n", {"row 3", "device is 99999999999"});
}

TEST(SpeedsFile, HeadersThatSayNothing) {
  refused("", {"no rows", "device,relative_time"});
  refused("device,relative_time\n", {"no rows"});
  refused("0,1\n1,1\n", {"row 1", "no column \"device\""});
  refused("device,time\n0,1\n1,1\n", {"row 1", "no column \"tokens\""});
  refused("device,tokens\n0,1\n1,1\n", {"row 1", "no column \"latency_us\""});
  refused("device,tokens,latency_us,relative_time\n0,1,1,1\n", {"row 1", "both kinds"});
  refused("device,device,relative_time\n0,1,1\n", {"row 1", "second column \"device\""});
  refused("device,relative_time\n0,1\n1\n", {"row 3", "1 fields; expected 2"});
}

}  // namespace
}  // namespace moevar::placement
