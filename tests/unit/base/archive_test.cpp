#include "base/archive.hpp"

#include <gtest/gtest.h>

namespace moevar {
namespace {

TEST(Archive, GivesBackWhatWentIn) {
  Matrix<double> matrix({2, 3}, 0.1);
  matrix(1, 2) = -1e300;
  ArchiveWriter writer;
  writer(true);
  writer(std::int64_t{-5});
  writer(std::vector<double>{1.5, 2.5});
  writer(std::optional<double>{});
  writer(std::optional<double>{0.1});
  writer(matrix);
  const auto bytes = std::move(writer).take();

  ArchiveReader reader(bytes);
  bool flag = false;
  std::int64_t number = 0;
  std::vector<double> row;
  std::optional<double> none = 3.0;
  std::optional<double> some;
  Matrix<double> back({2, 3});
  reader(flag);
  reader(number);
  reader(row);
  reader(none);
  reader(some);
  reader(back);
  EXPECT_TRUE(flag);
  EXPECT_EQ(number, -5);
  EXPECT_EQ(row, (std::vector<double>{1.5, 2.5}));
  EXPECT_FALSE(none.has_value());
  EXPECT_EQ(some, 0.1);
  EXPECT_EQ(back, matrix);
  EXPECT_TRUE(reader.at_end());
}

TEST(Archive, RefusesBytesThatEndTooEarly) {
  ArchiveWriter writer;
  writer(std::vector<double>{1.5, 2.5});
  const auto bytes = std::move(writer).take();
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    std::vector<double> row;
    ArchiveReader reader(std::string_view(bytes).substr(0, length));
    EXPECT_THROW(reader(row), InputError) << length;
  }
  ArchiveWriter liar;
  liar(~std::uint64_t{0});
  const auto lie = std::move(liar).take();
  std::vector<double> row;
  ArchiveReader reader(lie);
  EXPECT_THROW(reader(row), InputError) << "a count that no memory holds";
}

}  // namespace
}  // namespace moevar
