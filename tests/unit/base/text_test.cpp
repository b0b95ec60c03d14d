#include "base/text.hpp"

#include <array>
#include <vector>

#include <gtest/gtest.h>

namespace moevar {
namespace {

TEST(Text, EditDistanceCountsOperations) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("abc", ""), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("skwe", "skew"), 1U);  // neighbours swapped
}

TEST(Text, NearestIsTheFirstOfTheClosest) {
  const std::array<std::string_view, 3> names{"eplb", "vibe", "random"};
  EXPECT_EQ(nearest("elpb", names), "eplb");
  EXPECT_EQ(nearest("rand", names), "random");
  EXPECT_EQ(nearest("x", {}), "");
}

TEST(Text, OneOfReadsAsASentence) {
  EXPECT_EQ(one_of(std::array<std::string_view, 1>{"a"}), "a");
  EXPECT_EQ(one_of(std::array<std::string_view, 3>{"a", "b", "c"}), "a, b or c");
}

TEST(Text, PrintableStaysOnOneLine) {
  EXPECT_EQ(printable("a\nb\tc\x7f"), "a?b?c?");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

TEST(Text, RangesDrawRunsTogether) {
  EXPECT_EQ(ranges(std::vector<int>{}), "");
  EXPECT_EQ(ranges(std::vector{7}), "7");
  EXPECT_EQ(ranges(std::vector{0, 1}), "0,1");
  EXPECT_EQ(ranges(std::vector{0, 1, 2, 3, 8, 10, 11, 12}), "0-3,8,10-12");
}

}  // namespace
}  // namespace moevar
