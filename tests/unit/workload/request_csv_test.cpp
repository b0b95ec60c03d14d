#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "workload/requests.hpp"

namespace moevar::workload {
namespace {

/// The text is refused in one line that holds all the `parts`, and the path.
void expect_refused(const std::string& text, std::vector<std::string> parts) {
  parts.emplace_back("dir/r.csv");
  try {
    recorded_requests(text, "dir/r.csv");
    ADD_FAILURE() << "accepted; expected a message with " << parts.front();
  } catch (const InputError& error) {
    const std::string what = error.what();
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    for (const std::string& part : parts) {
      EXPECT_NE(what.find(part), std::string::npos) << "no \"" << part << "\" in: " << what;
    }
  }
}

std::string rows(const std::string& below_header) {
  return "arrival,input,output\n" + below_header;
}

TEST(RequestCsv, SecondsCountFromTheFirstArrival) {
  const auto requests = recorded_requests(rows("2.5,100,20\n4,7,1\n4,8,2\n"), "r.csv");
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(requests[0].arrival_s, 0.0);
  EXPECT_EQ(requests[1].arrival_s, 1.5);
  EXPECT_EQ(requests[2].arrival_s, 1.5);
  EXPECT_EQ(requests[0].input_tokens, 100);
  EXPECT_EQ(requests[0].output_tokens, 20);
  EXPECT_EQ(requests[2].input_tokens, 8);
  EXPECT_EQ(requests[2].kind, 0);
}

TEST(RequestCsv, DateTimesAcrossMidnightAndMonths) {
  const auto requests = recorded_requests(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2024-02-28 23:59:59.5000000,374,44\r\n"
      "2024-02-29 00:00:00.2500001,396,109\r\n"
      "2024-03-01T00:00:00,1,1\r\n",
      "r.csv");
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(requests[0].arrival_s, 0.0);
  EXPECT_NEAR(requests[1].arrival_s, 0.7500001, 1e-12);
  EXPECT_EQ(requests[2].arrival_s, 86400.5);
  EXPECT_EQ(requests[1].input_tokens, 396);
  EXPECT_EQ(requests[1].output_tokens, 109);
}

TEST(RequestCsv, DateTimesWithAnOffset) {
  const auto requests =
      recorded_requests(rows("2024-05-10 00:00:00Z,1,1\n2024-05-10 02:00:01+02:00,1,1\n2024-05-09 "
                             "23:30:02-00:30,1,1\n"),
                        "r.csv");
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(requests[1].arrival_s, 1.0);
  EXPECT_EQ(requests[2].arrival_s, 2.0);
}

TEST(RequestCsv, UnsortedTimes) {
  expect_refused(rows("1,1,1\n3,1,1\n2,1,1\n"), {"row 4", R"("2")", "rows in order"});
  expect_refused(rows("2024-01-01 00:00:01,1,1\n2024-01-01 00:00:00.9,1,1\n"),
                 {"row 3", "rows in order"});
}

TEST(RequestCsv, NegativeTimes) {
  expect_refused(rows("-1,1,1\n"), {"row 2", "seconds from 0 on"});
}

TEST(RequestCsv, TimesThatAreNotFinite) {
  for (const char* time : {"nan", "inf", "-inf", "NaN", "1e999"}) {
    expect_refused(rows(std::string(time) + ",1,1\n"), {"row 2", time, "seconds from 0 on"});
  }
}

TEST(RequestCsv, TimesThatAreNone) {
  for (const char* time :
       {"", "soon", "2024-02-30 00:00:00", "2024-01-01", "2024-01-01 24:00:00",
        "2024-01-01 00:60:00", "2024-01-01 00:00:61", "2024-01-01 00:00:00.",
        "2024-01-01 00:00:00+1", "2024-1-1 00:00:00", "2024-01-01 00:00:00 ago"}) {
    expect_refused(rows(std::string(time) + ",1,1\n"), {"row 2", "a date-time YYYY-MM-DD"});
  }
}

TEST(RequestCsv, DateTimesAmongSeconds) {
  expect_refused(rows("0,1,1\n2024-01-01 00:00:00,1,1\n"), {"row 3", "expected seconds"});
  expect_refused(rows("2024-01-01 00:00:00,1,1\n5,1,1\n"), {"row 3", "expected a date-time"});
}

TEST(RequestCsv, ZeroAndNegativeLengths) {
  expect_refused(rows("0,0,1\n"), {"row 2", R"(input is "0")", "from 1 to 16777216"});
  expect_refused(rows("0,1,0\n"), {"row 2", R"(output is "0")", "from 1 to 16777216"});
  expect_refused(rows("0,-5,1\n"), {"row 2", R"(input is "-5")"});
  expect_refused(rows("0,5,-1\n"), {"row 2", R"(output is "-1")"});
}

TEST(RequestCsv, LengthsThatAreNoWholeNumbers) {
  for (const char* tokens : {"1.5", "nan", "", "many", "1e3"}) {
    expect_refused(rows("0," + std::string(tokens) + ",1\n"),
                   {"row 2", "a whole number of tokens"});
  }
}

TEST(RequestCsv, HugeLengths) {
  EXPECT_EQ(recorded_requests(rows("0,16777216,1\n"), "r.csv")[0].input_tokens, kMostTokens);
  expect_refused(rows("0,16777217,1\n"), {"row 2", "from 1 to 16777216"});
  expect_refused(rows("0,1,99999999999999999999\n"), {"row 2", "from 1 to 16777216"});
}

TEST(RequestCsv, EmptyFile) {
  for (const char* text :
       {"", "\n\n", "arrival,input,output\n", "TIMESTAMP,ContextTokens,GeneratedTokens"}) {
    expect_refused(text, {"no rows", "arrival,input,output"});
  }
}

TEST(RequestCsv, WrongColumns) {
  expect_refused("arrival,input\n0,1\n", {R"(no column "output")"});
  expect_refused("TIMESTAMP,ContextTokens\n0,1\n", {R"(no column "GeneratedTokens")"});
  expect_refused("arrival,input,tokens\n0,1,1\n", {R"(unknown column "tokens")"});
  expect_refused("arrival,arrival,input,output\n0,0,1,1\n", {R"(second column "arrival")"});
  expect_refused("arrival,ContextTokens,GeneratedTokens\n0,1,1\n", {"columns of both formats"});
  expect_refused("0,1,1\n", {R"(unknown column "0")"});
  expect_refused(rows("0,1\n"), {"row 2", "2 fields; expected 3"});
}

// What Azure published of one hour: 19,366 conversations, in order and none without tokens.
TEST(RequestCsv, TheRecordedHourOfAzure) {
  const std::filesystem::path path =
      std::filesystem::path(MOEVAR_SHARED_DATA) / "request-traces/azure_llm_2023_conversation.csv";
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << path << " is not here";
  }
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  auto requests = recorded_requests(text.str(), path);
  ASSERT_EQ(requests.size(), 19'366U);
  EXPECT_EQ(requests.front().arrival_s, 0.0);
  EXPECT_EQ(requests.front().input_tokens, 374);
  EXPECT_EQ(requests.front().output_tokens, 44);
  EXPECT_NEAR(requests[1].arrival_s, 4.3145790, 1e-9);
  // 18:15:46.6805900 to 19:14:08.4025270
  EXPECT_NEAR(requests.back().arrival_s, 3501.721937, 1e-9);
  double input = 0.0;
  double output = 0.0;
  for (const Request& request : requests) {
    input += request.input_tokens;
    output += request.output_tokens;
  }
  EXPECT_NEAR(input / 19'366.0, 1154.697408, 1e-6);
  EXPECT_NEAR(output / 19'366.0, 211.125942, 1e-6);
  rescale(requests, 2.0);
  EXPECT_NEAR(mean_rate_rps(requests), 2.0, 1e-12);
}

}  // namespace
}  // namespace moevar::workload
