#include "run/layer_schedule.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include <gtest/gtest.h>

namespace moevar::run {
namespace {

using Operations = std::vector<LayerOperation>;

std::size_t find(const Operations& operations, LayerPart part, std::size_t batch) {
  const auto found = std::ranges::find_if(operations, [&](const auto& operation) {
    return operation.part == part && operation.batch == batch;
  });
  EXPECT_NE(found, operations.end());
  return static_cast<std::size_t>(found - operations.begin());
}

/// Which operations of two layers, one behind the other, are over before which begin: by the order
/// of queues and by what they wait for. The waits of `deaf` are left out.
class HappensBefore {
 public:
  explicit HappensBefore(const Operations& layer, std::size_t deaf = SIZE_MAX)
      : size_(2 * layer.size()), before_(size_, std::vector<bool>(size_)) {
    Operations both = layer;
    both.insert(both.end(), layer.begin(), layer.end());
    for (std::size_t b = 0; b < size_; ++b) {
      for (std::size_t a = 0; a < b; ++a) {
        const bool waits = b % layer.size() != deaf && both[b].after == both[a].part &&
                           both[b].batch == both[a].batch && both[a].awaited;
        if (both[a].queue == both[b].queue || waits) {
          for (std::size_t c = 0; c < size_; ++c) {
            before_[c][b] = before_[c][b] || c == a || before_[c][a];
          }
        }
      }
    }
  }
  bool operator()(std::size_t a, std::size_t b) const { return before_[a][b]; }

 private:
  std::size_t size_;
  std::vector<std::vector<bool>> before_;
};

/// What a part of a batch does with memory; `shared` is the device's, not a batch's.
struct Uses {
  std::set<char> reads, writes, shared;
};
Uses uses_of(LayerPart part) {
  switch (part) {
    case LayerPart::send:
      return {{}, {'r', 'w'}, {'s'}};  // rows and weights of the batch; scores
    case LayerPart::dispatch:
      return {{'r'}, {'v'}, {}};  // into what was received
    case LayerPart::work:
      return {{'v'}, {'v'}, {'e'}};  // what experts read and write
    case LayerPart::combine:
      return {{'v'}, {'r'}, {}};
    default:
      return {{'r', 'w'}, {'o'}, {}};
  }
}

bool meet(const std::set<char>& a, const std::set<char>& b) {
  return std::ranges::any_of(a, [&](char memory) { return b.contains(memory); });
}

/// Pairs that use the same memory, one of them to write, and that nothing orders.
std::size_t races(const Operations& layer, const HappensBefore& before) {
  std::size_t found = 0;
  for (std::size_t b = 0; b < 2 * layer.size(); ++b) {
    for (std::size_t a = 0; a < b; ++a) {
      const auto& [first, second] = std::pair(layer[a % layer.size()], layer[b % layer.size()]);
      const Uses x = uses_of(first.part);
      const Uses y = uses_of(second.part);
      const bool conflict =
          first.batch == second.batch &&
          (meet(x.writes, y.reads) || meet(x.writes, y.writes) || meet(x.reads, y.writes));
      found += (conflict || meet(x.shared, y.shared)) && !before(a, b) ? 1U : 0U;
    }
  }
  return found;
}

TEST(LayerSchedule, OneBatchIsOnePartAfterTheOther) {
  const auto operations = layer_schedule(1);
  ASSERT_EQ(operations.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(operations[i],
              (LayerOperation{static_cast<LayerPart>(i), 0, Queue::compute, std::nullopt, false}));
  }
}

TEST(LayerSchedule, EveryPartOfEveryBatchOnce) {
  for (const std::size_t batches : {1U, 2U, 3U}) {
    const auto operations = layer_schedule(batches);
    EXPECT_EQ(operations.size(), 5 * batches);
    for (std::size_t batch = 0; batch < batches; ++batch) {
      std::size_t last = 0;
      for (std::size_t part = 0; part < 5; ++part) {
        const auto at = find(operations, static_cast<LayerPart>(part), batch);
        EXPECT_TRUE(part == 0 || at > last) << "queued before what it needs";
        last = at;
      }
    }
  }
}

TEST(LayerSchedule, NothingIsReadBeforeItIsWritten) {
  for (const std::size_t batches : {1U, 2U, 3U}) {
    const auto operations = layer_schedule(batches);
    EXPECT_EQ(races(operations, HappensBefore(operations)), 0U);
  }
}

TEST(LayerSchedule, EveryWaitIsNeeded) {
  const auto operations = layer_schedule(2);
  std::size_t waits = 0;
  for (std::size_t i = 0; i < operations.size(); ++i) {
    if (operations[i].after) {
      ++waits;
      EXPECT_GT(races(operations, HappensBefore(operations, i)), 0U) << "operation " << i;
    }
  }
  EXPECT_EQ(waits, 8U);
}

TEST(LayerSchedule, OneBatchTravelsWhileTheOthersExpertsCompute) {
  const auto operations = layer_schedule(2);
  const HappensBefore before(operations);
  const auto beside = [&](LayerPart a, std::size_t batch_a, LayerPart b, std::size_t batch_b) {
    const auto first = find(operations, a, batch_a);
    const auto second = find(operations, b, batch_b);
    return !before(first, second) && !before(second, first);
  };
  EXPECT_TRUE(beside(LayerPart::dispatch, 1, LayerPart::work, 0));
  EXPECT_TRUE(beside(LayerPart::combine, 0, LayerPart::work, 1));
  EXPECT_TRUE(beside(LayerPart::combine, 1, LayerPart::finish, 0));
  EXPECT_FALSE(beside(LayerPart::dispatch, 0, LayerPart::work, 0));
}

TEST(LayerSchedule, ExchangesHaveOneOrderAndOneQueue) {
  Operations exchanges;
  std::ranges::copy_if(layer_schedule(2), std::back_inserter(exchanges),
                       [](const auto& operation) { return is_exchange(operation.part); });
  using enum LayerPart;
  const Operations expected{{dispatch, 0, Queue::exchange, send, true},
                            {dispatch, 1, Queue::exchange, send, true},
                            {combine, 0, Queue::exchange, work, true},
                            {combine, 1, Queue::exchange, work, true}};
  EXPECT_EQ(exchanges, expected);
}

TEST(LayerSchedule, WhatTheHostMayWaitInComesAfterWhatComputesMeanwhile) {
  const auto operations = layer_schedule(2);
  EXPECT_LT(find(operations, LayerPart::work, 0), find(operations, LayerPart::dispatch, 1));
  EXPECT_LT(find(operations, LayerPart::work, 1), find(operations, LayerPart::combine, 0));
  EXPECT_LT(find(operations, LayerPart::finish, 0), find(operations, LayerPart::combine, 1));
}

TEST(LayerSchedule, ALayerIsLeftBeforeTheNextIsEntered) {
  const auto operations = layer_schedule(2);
  const HappensBefore before(operations);
  const auto next = operations.size();
  for (const std::size_t batch : {0U, 1U}) {
    for (const std::size_t other : {0U, 1U}) {
      EXPECT_TRUE(before(find(operations, LayerPart::finish, batch),
                         next + find(operations, LayerPart::send, other)));
    }
  }
}

TEST(Batches, AreOfOneSizeOrOneMore) {
  using Ranges = std::vector<TokenRange>;
  EXPECT_EQ(batches_of(8, 2), (Ranges{{0, 4}, {4, 4}}));
  EXPECT_EQ(batches_of(7, 2), (Ranges{{0, 4}, {4, 3}}));
  EXPECT_EQ(batches_of(2, 2), (Ranges{{0, 1}, {1, 1}}));
  EXPECT_EQ(batches_of(7, 1), (Ranges{{0, 7}}));
}

TEST(Batches, NoneIsEmpty) {
  using Ranges = std::vector<TokenRange>;
  EXPECT_EQ(batches_of(1, 2), (Ranges{{0, 1}}));
  EXPECT_EQ(batches_of(0, 2), (Ranges{{0, 0}}));
}

}  // namespace
}  // namespace moevar::run
