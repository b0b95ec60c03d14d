#include <string>

#include <gtest/gtest.h>

#include "expert_ffn/cublas_loop.hpp"
#include "expert_ffn/emulation.hpp"
#include "expert_ffn/ways.hpp"

namespace moevar::expert_ffn {
namespace {

using emulation::Experts;
using emulation::HostRun;
using emulation::of_e4m3;
using emulation::Slots;

const std::vector<std::size_t> kRows{5, 0, 1, 17, 0, 3, 1, 40, 2};

TEST(ExpertFfnLayout, RowsOfASlotAreAllThoseOfW1AndW3) {
  std::vector<int> seen(2 * 48);
  for (std::size_t row = 0; row < 48; ++row) {
    for (const bool up : {false, true}) {
      const std::size_t at = slot_row({row, up});
      ASSERT_LT(at, seen.size());
      ++seen[at];
      EXPECT_EQ(plain_row(at).row, row);
      EXPECT_EQ(plain_row(at).up, up);
    }
  }
  EXPECT_EQ(seen, std::vector<int>(2 * 48, 1));
}

/// A thread holds the columns 8q + 2t and 8q + 2t + 1 of a block, and needs both factors of 4
/// neighbouring activations among them.
TEST(ExpertFfnLayout, AThreadHoldsBothFactorsOfNeighbours) {
  for (std::size_t t = 0; t < 4; ++t) {
    for (std::size_t v = 0; v < kThreadActivations; ++v) {
      const std::size_t gate = slot_row({4 * t + v, false});
      const std::size_t up = slot_row({4 * t + v, true});
      EXPECT_EQ(gate % 8 / 2, t);
      EXPECT_EQ(up, gate + 16);
      EXPECT_EQ(gate, 8 * (v / 2) + 2 * t + v % 2);
    }
  }
}

TEST(ExpertFfnLayout, GroupsOfRowsAreFound) {
  const std::vector<int> first_rows{0, 5, 6, 23};
  for (int row = 0; row < 30; ++row) {
    int expected = 0;
    while (expected < 3 && first_rows[static_cast<std::size_t>(expected) + 1] <= row) {
      ++expected;
    }
    EXPECT_EQ(group_of(row, first_rows.data(), 4), expected) << row;
  }
}

TEST(ExpertFfnLayout, DescribedProductsMakeTheExpertsWorkInBf16) {
  for (const Shape& shape : {Shape{16, 16}, Shape{48, 32}, Shape{256, 112}}) {
    Experts experts(shape, kRows, 100);
    const Slots slots(experts, Precision::bf16);
    HostRun run(experts, slots, Precision::bf16);
    run.run();
    EXPECT_EQ(run.groups, 7);
    EXPECT_LT(run.error(), 5e-3) << shape.hidden;
    EXPECT_GT(run.error(), 1e-5) << "rounding to bf16 cannot go unseen";
  }
}

/// e4m3 has 4 bits of fraction with the hidden one: a value's error is 2^-4 / sqrt(12) to twice
/// that of its size, and every product has two such operands.
TEST(ExpertFfnLayout, DescribedProductsMakeTheExpertsWorkInFp8) {
  for (const Shape& shape : {Shape{16, 16}, Shape{512, 256}, Shape{1024, 512}}) {
    Experts experts(shape, kRows, 200);
    const Slots slots(experts, Precision::fp8);
    HostRun run(experts, slots, Precision::fp8);
    run.run();
    RecordProperty("error_" + std::to_string(shape.hidden), std::to_string(run.error()));
    EXPECT_LT(run.error(), 8e-2) << shape.hidden;
    EXPECT_GT(run.error(), 1e-2) << "quantising cannot go unseen";
  }
}

TEST(ExpertFfnLayout, QuantisingKeepsZeroAndTheLargest) {
  EXPECT_EQ(e4m3_of(0.0F, inverse_factor_of(0.0F)), 0);
  EXPECT_EQ(of_e4m3(e4m3_of(-3.0F, inverse_factor_of(3.0F))), -448.0F);
  EXPECT_EQ(of_e4m3(e4m3_of(1.0F, 1.0F)), 1.0F);
  EXPECT_EQ(of_e4m3(e4m3_of(1000.0F, 1.0F)), 448.0F);
}

/// Algorithms are asked for at 16, 24, 32, 48, ... rows, never more than half too many.
TEST(ExpertFfnLayout, SizesOfRowsAreFewAndNear) {
  EXPECT_EQ(size_of_rows(1), 16U);
  EXPECT_EQ(size_of_rows(16), 16U);
  EXPECT_EQ(size_of_rows(17), 24U);
  EXPECT_EQ(size_of_rows(25), 32U);
  EXPECT_EQ(size_of_rows(8192), 8192U);
  for (std::size_t rows = 17; rows < 5000; ++rows) {
    EXPECT_GE(size_of_rows(rows), rows);
    EXPECT_LT(2 * size_of_rows(rows), 3 * rows);
  }
}

TEST(ExpertFfnWays, AreThoseTunedForTheNearestRows) {
  KnownWays ways;
  ways.tuned = {{32, {1, 2}}, {128, {3, 4}}, {2048, {5, 6}}};
  const auto first = [&ways](std::size_t rows) { return ways.choice_for(rows).first; };
  EXPECT_EQ(first(1), 1U);
  EXPECT_EQ(first(63), 1U);
  EXPECT_EQ(first(64), 3U);
  EXPECT_EQ(first(511), 3U);
  EXPECT_EQ(first(512), 5U);
  EXPECT_EQ(first(100000), 5U);
  EXPECT_EQ(ways.choice_for(128).second, 4U);
  ways.forced = Choice{7, 8};
  EXPECT_EQ(first(1), 7U);
}

TEST(ExpertFfnWays, BeforeTuningATileIsTakenThatTheRowsFill) {
  const auto kernel = [](const char* name, Result result) {
    return GroupedGemm{name, result, nullptr, nullptr};
  };
  const std::vector<GroupedGemm> gemms{
      kernel("128x256", Result::plain), kernel("128x256", Result::swiglu),
      kernel("64x128", Result::plain), kernel("64x128", Result::swiglu)};
  KnownWays ways;
  EXPECT_EQ(ways.choice_for(8).first, 0U) << "cuBLASLt alone";
  for (const GroupedGemm& gemm : gemms) {
    ways.first.push_back({&gemm, true, 0});
  }
  ways.second = {ways.first[0], ways.first[2]};
  EXPECT_EQ(ways.first[ways.choice_for(8).first].name(), "cutlass 64x128 fused by columns");
  EXPECT_EQ(ways.second[ways.choice_for(8).second].name(), "cutlass 64x128 by columns");
  EXPECT_EQ(ways.first[ways.choice_for(4096).first].name(), "cutlass 128x256 fused by columns");
  ways.first = ways.second;  // as with fp8
  EXPECT_EQ(ways.first[ways.choice_for(8).first].name(), "cutlass 64x128 by columns");
}

}  // namespace
}  // namespace moevar::expert_ffn
