#include "gating/gating_lanes.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "gating/gating.hpp"

/// The GPU kernel's inner functions, driven through a warp's lanes by the host, against the CPU
/// version.
namespace moevar::gating {
namespace {

TEST(GatingLanes, KeysAreInTheOrderOfScores) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> ascending{-kInfinity, -3e38F, -1.0F,   -1e-40F, 0.0F,
                                     1e-45F,     1.0F,   1.0001F, 3.4e38F, kInfinity};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    EXPECT_EQ(score_of(key_of(ascending[i])), ascending[i]);
    EXPECT_GT(key_of(ascending[i]), i == 0 ? 0U : key_of(ascending[i - 1])) << i;
  }
  EXPECT_EQ(key_of(-0.0F), key_of(0.0F));
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    const auto a = std::bit_cast<float>(static_cast<std::uint32_t>(RandomKey(1)[i].bits()));
    const auto b = std::bit_cast<float>(static_cast<std::uint32_t>(RandomKey(2)[i].bits()));
    if (a == a && b == b) {
      EXPECT_EQ(a < b, key_of(a) < key_of(b)) << a << " " << b;
    }
    EXPECT_NE(key_of(a), 0U);
  }
  EXPECT_NE(key_of(std::bit_cast<float>(0xFFFFFFFFU)), 0U);
}

/// What choose_top_k in gating_cuda.cu does, with loops for the warp's reductions.
template <std::uint32_t kHeld>
std::vector<std::int32_t> choose(const std::vector<float>& scores, std::size_t top_k) {
  std::vector<LaneScores<kHeld>> warp;
  warp.reserve(kLanes);
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    warp.emplace_back(scores.data(), static_cast<std::uint32_t>(scores.size()), lane);
  }
  std::vector<std::int32_t> ids(top_k);
  for (auto& id : ids) {
    std::uint32_t key = 0;
    for (const auto& lane : warp) {
      key = std::max(key, lane.best().key);
    }
    std::uint32_t expert = kNoExpert;
    for (const auto& lane : warp) {
      expert = std::min(expert, lane.best().key == key ? lane.best().expert : kNoExpert);
    }
    for (auto& lane : warp) {
      lane.remove(expert);
    }
    id = static_cast<std::int32_t>(expert);
  }
  return ids;
}

std::vector<std::int32_t> choose(const std::vector<float>& scores, std::size_t top_k) {
  switch (held_for(scores.size())) {
    case 1:
      return choose<1>(scores, top_k);
    case 2:
      return choose<2>(scores, top_k);
    case 4:
      return choose<4>(scores, top_k);
    case 8:
      return choose<8>(scores, top_k);
    default:
      return choose<16>(scores, top_k);
  }
}

/// Few different scores, so that most of them tie.
TEST(GatingLanes, ChoosesWhatTheCpuChooses) {
  for (const std::size_t experts :
       {1U, 2U, 31U, 32U, 33U, 64U, 100U, 128U, 160U, 256U, 257U, 512U}) {
    for (const std::size_t top_k : {std::size_t{1}, std::size_t{8}, std::size_t{32}}) {
      const Shape shape{1, experts, std::min(top_k, experts)};
      for (const std::uint64_t levels : {2ULL, 9ULL, 1ULL << 40U}) {
        std::vector<float> scores(experts);
        for (std::size_t e = 0; e < experts; ++e) {
          scores[e] = static_cast<float>(RandomKey(3)[experts][levels][e].below(levels)) - 1.0F;
        }
        std::vector<std::int32_t> expected(shape.top_k);
        choose_top_k_cpu(shape, scores, expected);
        EXPECT_EQ(choose(scores, shape.top_k), expected) << experts << " " << levels;
      }
    }
  }
}

TEST(GatingLanes, ScoresThatAreNoNumbersStillChooseExperts) {
  for (const std::uint32_t bits : {0xFFFFFFFFU, 0x7FC00000U, 0xFF800000U}) {
    const auto ids = choose(std::vector<float>(40, std::bit_cast<float>(bits)), 32);
    for (std::size_t k = 0; k < ids.size(); ++k) {
      EXPECT_EQ(ids[k], static_cast<std::int32_t>(k));
    }
  }
}

TEST(GatingLanes, HoldsAsManyScoresAsThereAre) {
  EXPECT_EQ(held_for(1), 1U);
  EXPECT_EQ(held_for(33), 2U);
  EXPECT_EQ(held_for(96), 4U);
  EXPECT_EQ(held_for(256), 8U);
  EXPECT_EQ(held_for(512), 16U);
}

}  // namespace
}  // namespace moevar::gating
