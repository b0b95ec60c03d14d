#include "base/tensor.hpp"

#include <gtest/gtest.h>

#include "base/units.hpp"

namespace moevar {
namespace {

TEST(Tensor, IsRowMajor) {
  Tensor<int, 3> t({2, 3, 4});
  t(1, 2, 3) = 7;
  t(1, 0, 0) = 5;
  EXPECT_EQ(t.flat()[23], 7);
  EXPECT_EQ(t.flat()[12], 5);
  EXPECT_EQ(t.row(1).size(), 12U);
  EXPECT_EQ(t.row(1)[0], 5);
  EXPECT_EQ(t.row(1, 2)[3], 7);
}

TEST(Units, BlocksCoverTheFleetInOrder) {
  for (const int ranks : {1, 2, 3, 7, 16}) {
    DeviceId next = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto block = block_of(rank, ranks, 10);
      EXPECT_EQ(block.begin, next);
      EXPECT_GE(block.size(), 10 / ranks);
      EXPECT_LE(block.size(), 10 / ranks + 1);
      next = block.end;
    }
    EXPECT_EQ(next, 10);
  }
}

}  // namespace
}  // namespace moevar
