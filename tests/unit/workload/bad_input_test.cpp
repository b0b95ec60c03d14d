#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "routing_checks.hpp"

namespace moevar::workload {
namespace {

/// The call throws InputError with a message of one line that holds all the `parts`.
void expect_refused(const std::function<void()>& call, const std::vector<std::string>& parts) {
  try {
    call();
    ADD_FAILURE() << "accepted; expected a message with " << parts.front();
  } catch (const InputError& error) {
    const std::string what = error.what();
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    for (const std::string& part : parts) {
      EXPECT_NE(what.find(part), std::string::npos) << "no \"" << part << "\" in: " << what;
    }
  }
}

void counts_refused(const std::string& text, const std::string& path,
                    const std::vector<std::string>& parts, RoutingShape expected = {0, 0, 1}) {
  expect_refused([&] { make_counts(text, path, expected, 1); }, parts);
  expect_refused([&] { make_counts(text, path, expected, 1); }, {path});
}

void tokens_refused(const std::string& text, const std::string& path,
                    const std::vector<std::string>& parts, RoutingShape expected = {0, 0, 0}) {
  expect_refused([&] { make_tokens(text, path, expected, 1); }, parts);
  expect_refused([&] { make_tokens(text, path, expected, 1); }, {path});
}

TEST(BadInput, NotJson) {
  for (const char* text :
       {"", " ", "{", "nonsense\n\"a\nb\"", R"({"logical_count": [[1, 2], [3)",
        R"({"logical_count": [[1, NaN]]})", R"({"logical_count": [[1, 1e999]]})"}) {
    counts_refused(text, "dir/a.json", {"not JSON"});
    tokens_refused(text, "dir/a.json", {"not JSON"});
  }
}

TEST(BadInput, AMessageAboutJsonIsOneShortLineWhateverItQuotes) {
  try {
    make_counts("\"\x7F\x1B" + std::string(100'000, 'a'), "a.json", {0, 0, 1}, 1);
    ADD_FAILURE() << "accepted";
  } catch (const InputError& error) {
    const std::string what = error.what();
    EXPECT_LT(what.size(), 400U);
    EXPECT_EQ(what.find_first_of("\x7F\x1B\n"), std::string::npos) << what;
  }
  EXPECT_THROW(make_counts("\x7F", "a.json", {0, 0, 1}, 1), InputError);
}

TEST(BadInput, JsonWithoutTheKey) {
  counts_refused(R"({"counts": [[1]]})", "a.json", {"no key", "\"logical_count\""});
  counts_refused("[[1]]", "a.json", {"array", "\"logical_count\""});
  tokens_refused(R"({"logical_count": [[1]]})", "a.json", {"no key", "\"topk_ids\""});
  tokens_refused("3", "a.json", {"number", "\"topk_ids\""});
}

TEST(BadInput, JsonOfAnotherShape) {
  const auto file = [](const std::string& array) { return "{\"logical_count\": " + array + "}"; };
  counts_refused(file("3"), "a.json", {"logical_count: number instead of a list of layers"});
  counts_refused(file("[]"), "a.json", {"logical_count: 0 layers; expected at least one"});
  counts_refused(file("[[]]"), "a.json", {"layer 0: 0 experts; expected at least one"});
  counts_refused(file("[1, 2]"), "a.json", {"layer 0: number instead of a list of experts"});
  counts_refused(file("[[1, 2], [3]]"), "a.json", {"layer 1: 1 experts; expected 2"});
  counts_refused(file("[[1, 2], 3]"), "a.json", {"layer 1: number instead of"});
  counts_refused(file("[[[1], [2]], [[1]]]"), "a.json", {"step 1: 1 layers; expected 2"});
  counts_refused(file("[[[[1]]]]"), "a.json", {"step 0, layer 0, expert 0", "array"});
  const auto ids = [](const std::string& array) { return "{\"topk_ids\": " + array + "}"; };
  tokens_refused(ids("[[1, 2]]"), "a.json", {"layer 0, token 0: number instead of"});
  tokens_refused(ids("[[[1, 2], [3]]]"), "a.json", {"layer 0, token 1: 1 choices; expected 2"});
  tokens_refused(ids("[[[1, 2]], [[1, 2], [3, 4]]]"), "a.json", {"layer 1: 2 tokens; expected 1"});
  tokens_refused(ids("[[[[[1]]]]]"), "a.json", {"step 0, layer 0, token 0, choice 0", "array"});
}

TEST(BadInput, CountsThatAreNone) {
  for (const char* value : {"-1", "1e300", "9007199254740994", "null", "\"NaN\"", "true", "{}"}) {
    counts_refused(std::string(R"({"logical_count": [[1, 1], [1, )") + value + "]]}", "a.json",
                   {"layer 1, expert 1: a count is "});
  }
  for (const char* value : {"-1", "1e300", "nan", "inf", "-nan"}) {
    counts_refused(std::string("layer,expert,count\n0,0,1\n0,1,") + value + "\n", "a.csv",
                   {"row 3 (layer 0, expert 1): a count is "});
  }
  for (const char* value : {"", "x", "1x", "1e999", "0x1", "1 2"}) {
    counts_refused(std::string("layer,expert,count\n0,0,1\n0,1,") + value + "\n", "a.csv",
                   {"row 3: count is \""});
  }
}

TEST(BadInput, CountsThatDoNotFitTheModel) {
  const char* text = R"({"logical_count": [[0, 0, 0, 0], [1, 2, 3, 4], [1, 0, 0, 0]]})";
  counts_refused(text, "a.json", {"4 experts", "expected 8"}, {0, 8, 1});
  counts_refused(text, "a.json", {"2 MoE layers", "expected 3"}, {3, 4, 1});
  counts_refused(text, "a.json", {"expected -1"}, {-1, 4, 1});
  counts_refused(text, "a.json", {"layer 2: 1 experts", "top_k, 2"}, {0, 4, 2});
  counts_refused(text, "a.json", {"top_k is 5", "1 to 4"}, {1, 4, 5});
  counts_refused(text, "a.json", {"top_k is 0", "1 to 4"}, {1, 4, 0});
  counts_refused(R"({"logical_count": [[[1, 1]], [[0, 2]]]})", "a.json",
                 {"layer 0, recorded step 1: 1 experts", "top_k, 2"}, {0, 0, 2});
  counts_refused(R"({"logical_count": [[0, 0], [0, 0]]})", "a.json", {"no layer has tokens"});
  // a share that rounds to nothing is none
  counts_refused(R"({"logical_count": [[9007199254740992, 1e-320]]})", "a.json",
                 {"layer 0: 1 experts", "top_k, 2"}, {0, 0, 2});
}

TEST(BadInput, NeitherJsonNorCsv) {
  counts_refused("1", "counts.txt", {".json or .csv"});
  tokens_refused("1", "json", {".json or .csv"});
}

TEST(BadInput, CsvHeaders) {
  counts_refused("", "a.csv", {"no rows", "[step,]layer,expert,count"});
  counts_refused("layer,expert,count\n", "a.csv", {"no rows"});
  counts_refused("0,0,1\n", "a.csv", {"row 1: unknown column \"0\""});
  counts_refused("layer,expert\n0,0\n", "a.csv", {"row 1: no column \"count\""});
  counts_refused("layer,expert,count,layer\n", "a.csv", {"row 1: second column \"layer\""});
  counts_refused("model,layer,expert,count\nx,0,0,1\n", "a.csv",
                 {"row 1: unknown column \"model\"", "[step,]layer,expert,count"});
  tokens_refused("layer,expert,count\n0,0,1\n", "a.csv",
                 {"unknown column \"count\"", "[step,]layer,token,expert"});
  tokens_refused("step,layer,expert\n0,0,1\n", "a.csv", {"no column \"token\""});
}

TEST(BadInput, CsvRows) {
  const std::string header = "layer,expert,count\n";
  counts_refused(header + "0,0\n", "a.csv", {"row 2: 2 fields; expected 3"});
  counts_refused(header + "0,0,1,2\n", "a.csv", {"row 2: 4 fields; expected 3"});
  counts_refused(header + "\n-1,0,1\n", "a.csv", {"row 3: layer is -1"});
  counts_refused(header + "0,99999999999,1\n", "a.csv", {"row 2: expert is 99999999999"});
  counts_refused(header + "0,99999999999999999999,1\n", "a.csv", {"row 2: expert is \"9999"});
  counts_refused(header + "0,0.5,1\n", "a.csv", {"row 2: expert is \"0.5\"", "whole"});
  counts_refused(header + "0,0,1\n0,2,1\n", "a.csv", {"too few rows", "layer 0, expert 1"});
  counts_refused(header + "0,0,1\n0,1,1\n1,0,1\n", "a.csv", {"too few rows", "layer 1, expert 1"});
  counts_refused(header + "0,0,1\n0,1,1\n1,1,1\n", "a.csv", {"too few rows", "layer 1, expert 0"});
  counts_refused(header + "0,0,1\n0,1,1\n0,0,1\n", "a.csv",
                 {"row 4: one row too many", "expert 0"});
  counts_refused(header + "0,0,1\n0,0,1\n", "a.csv", {"row 3: one row too many"});
  counts_refused(header + "0,2147483646,1\n2147483646,0,1\n", "a.csv", {"too few rows"});
  counts_refused("step," + header + "0,0,0,1\n0,1,0,1\n1,0,0,1\n", "a.csv",
                 {"too few rows", "step 1, layer 1, expert 0"});
  const std::string ids = "layer,token,expert\n";
  tokens_refused(ids + "0,0,1\n0,0,2\n0,1,1\n", "a.csv", {"too few rows", "layer 0, token 1"});
  tokens_refused(ids + "0,0,1\n0,1,1\n0,1,2\n", "a.csv", {"row 4: one row too many", "token 1"});
  tokens_refused(ids + "0,1,1\n0,2,1\n", "a.csv", {"too few rows", "layer 0, token 0"});
}

TEST(BadInput, IdsThatAreNoExperts) {
  const auto ids = [](const std::string& id) {
    return R"({"topk_ids": [[[0, 1], [1, )" + id + "]]]}";
  };
  for (const char* id : {"4", "-1", "1.5", "1e300"}) {
    tokens_refused(ids(id), "a.json", {"layer 0, token 1, choice 1: an expert id is ", "0 to 3"},
                   {1, 4, 2});
  }
  tokens_refused(ids("null"), "a.json", {"layer 0, token 1, choice 1", "null"});
  tokens_refused(ids("1"), "a.json", {"step 0, layer 0, token 1: expert 1 twice"});
  for (const char* id : {"4", "-1", "1.5", "nan", "1e300"}) {
    tokens_refused(std::string("layer,token,expert\n0,0,0\n0,1,") + id, "a.csv",
                   {"row 3", "an expert id is ", "0 to 3"}, {1, 4, 1});
  }
  tokens_refused("layer,token,expert\n7,0,2\n7,0,2\n", "a.csv",
                 {"layer 7, token 0: expert 2 twice"});
}

TEST(BadInput, TokensThatDoNotFitTheModel) {
  const char* text = R"({"topk_ids": [[[0, 1]], [[1, 2]]]})";
  tokens_refused(text, "a.json", {"2 experts per token", "expected 4"}, {0, 0, 4});
  tokens_refused(text, "a.json", {"2 MoE layers", "expected 3"}, {3, 0, 2});
  tokens_refused(text, "a.json", {"layer 1, token 0", "is 2", "0 to 1"}, {0, 2, 2});
}

TEST(BadInput, SyntheticParameters) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto refused = [](const RoutingShape& shape, const SyntheticSpec& spec,
                          const std::string& part) {
    expect_refused([&] { make_synthetic(shape, spec, 1); }, {"synthetic routing", part});
  };
  const RoutingShape shape{2, 8, 2};
  for (const double skew : {-0.1, kNan, kInfinity}) {
    refused(shape, {skew, 0, 0}, "skew is ");
  }
  for (const double share : {-0.1, 1.1, kNan, kInfinity}) {
    refused(shape, {0.5, share, 0}, "burst is ");
    refused(shape, {0.5, 0, share}, "drift is ");
  }
  refused({0, 8, 2}, {}, "0 layers");
  refused({2, 0, 2}, {}, "0 experts");
  refused({2, 8, 0}, {}, "top_k is 0");
  refused({2, 8, 9}, {}, "top_k is 9; expected 1 to 8");
}

TEST(BadInput, Requests) {
  const auto synthetic = make_synthetic({2, 4, 2}, {}, 1);
  const auto recorded = make_tokens(R"({"topk_ids": [[[0, 1]], [[1, 2]]]})", "a.json", {}, 1);
  for (const Routing* routing : {synthetic.get(), recorded.get()}) {
    std::vector<std::uint32_t> counts(static_cast<std::size_t>(2 * routing->shape().experts));
    expect_refused([&] { routing->sample(-1, 1, counts); }, {"step is -1"});
    expect_refused([&] { routing->sample(0, 0, counts); }, {"0 tokens"});
    expect_refused([&] { routing->sample(0, 1LL << 32, counts); }, {"4294967296 tokens"});
    expect_refused([&] { routing->sample(0, 1, std::span(counts).first(3)); }, {"room for 3"});
    expect_refused([&] { (void)routing->token_experts(-1, 0, 1); }, {"step is -1"});
    expect_refused([&] { (void)routing->token_experts(0, 2, 1); }, {"layer is 2; expected 0 to 1"});
    expect_refused([&] { (void)routing->token_experts(0, -1, 1); }, {"layer is -1"});
    expect_refused([&] { (void)routing->token_experts(0, 0, 0); }, {"0 tokens"});
  }
}

}  // namespace
}  // namespace moevar::workload
