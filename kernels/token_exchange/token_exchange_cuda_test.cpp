#include "token_exchange/token_exchange_cuda.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "base/random.hpp"
#include "gpu_test.hpp"
#include "token_exchange/token_exchange.hpp"

namespace moevar::token_exchange {
namespace {

using cuda::DeviceArray;

constexpr BFloat16 kPoison{0x7FC0};  ///< a NaN

struct Case {
  std::size_t hidden, tokens, top_k, slots;
};
const std::vector<Case> kCases = {{2, 1, 1, 1},        {64, 0, 2, 3},       {16, 5, 4, 7},
                                  {514, 33, 9, 12},    {2050, 37, 6, 64},   {2052, 100, 8, 2},
                                  {2880, 77, 4, 32},   {7168, 129, 8, 257}, {2048, 1024, 8, 128},
                                  {64, 9001, 8, 1000}, {64, 1025, 8, 512},  {64, 1024, 8, 512},
                                  {64, 100, 8, 513}};

class TokenExchangeCuda : public GpuTest {
 protected:
  void set_up() override { stream_.emplace(); }
  [[nodiscard]] const cuda::Stream& stream() const { return *stream_; }

  template <class T>
  DeviceArray<T> on_device(const std::vector<T>& values) const {
    DeviceArray<T> array(values.size());
    cuda::to_device(std::span<const T>(values), array.data(), stream());
    stream().synchronise();
    return array;
  }
  template <class T>
  std::vector<T> on_host(const T* values, std::size_t count) const {
    std::vector<T> all(count);
    cuda::to_host(values, std::span<T>(all), stream());
    stream().synchronise();
    return all;
  }

 private:
  std::optional<cuda::Stream> stream_;
};

std::vector<BFloat16> random_rows(std::uint64_t key, std::size_t values) {
  std::vector<BFloat16> all(values);
  for (std::size_t i = 0; i < values; ++i) {
    all[i] = BFloat16::from(static_cast<float>(RandomKey(key)[i].normal()));
  }
  return all;
}

std::vector<float> floats(const std::vector<BFloat16>& values) {
  std::vector<float> all(values.size());
  std::ranges::transform(values, all.begin(), [](BFloat16 v) { return v.value(); });
  return all;
}

/// Every second row goes to one slot where `hot`.
std::vector<std::int32_t> random_slots(std::uint64_t key, const Case& c, bool hot) {
  std::vector<std::int32_t> all(c.tokens * c.top_k);
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<std::int32_t>(hot && i % 2 == 0 ? c.slots / 2
                                                         : RandomKey(key)[i].below(c.slots));
  }
  return all;
}

TEST_F(TokenExchangeCuda, PlanIsTheCpusToTheBit) {
  for (const Case& c : kCases) {
    const std::size_t rows = c.tokens * c.top_k;
    DevicePlan device(rows, c.slots);
    for (const bool hot : {false, true}) {
      const auto slots = random_slots(c.hidden + (hot ? 1 : 0), c, hot);
      // fewer rows than memory is for as well
      for (const std::size_t count : {rows, rows / 2, std::size_t{0}}) {
        const std::vector<std::int32_t> part(slots.begin(),
                                             slots.begin() + static_cast<std::ptrdiff_t>(count));
        Permutation expected(count, c.slots);
        plan(part, expected);
        const auto device_part = on_device(part);
        device.make(device_part.data(), count, stream());
        EXPECT_EQ(device.rows(), count);
        EXPECT_EQ(on_host(device.place(), count), expected.place);
        EXPECT_EQ(on_host(device.rows_per_slot(), c.slots), expected.rows_per_slot);
      }
    }
  }
}

/// hot experts, odd sizes, no rows; both ways, against the CPU version.
TEST_F(TokenExchangeCuda, PermuteAndUnpermuteAgreeWithTheCpu) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.hidden << " x " << c.tokens << " x " << c.top_k);
    const std::size_t rows = c.tokens * c.top_k;
    const auto slots = random_slots(c.hidden, c, c.tokens % 2 == 1);
    const auto x = random_rows(1 + c.hidden, c.tokens * c.hidden);
    std::vector<float> weights(rows);
    for (std::size_t i = 0; i < rows; ++i) {
      weights[i] = static_cast<float>(RandomKey(2)[c.hidden][i].uniform());
    }
    Permutation permutation(rows, c.slots);
    plan(slots, permutation);
    std::vector<float> expected(rows * c.hidden);
    permute_cpu(c.hidden, c.top_k, permutation, floats(x), expected);
    std::vector<float> expected_y(x.size());
    unpermute_cpu(c.hidden, c.top_k, permutation, expected, weights, expected_y);

    DevicePlan device(rows, c.slots);
    const auto device_slots = on_device(slots);
    const auto device_x = on_device(x);
    const auto device_weights = on_device(weights);
    const auto device_rows = on_device(std::vector<BFloat16>(rows * c.hidden, kPoison));
    const auto device_y = on_device(std::vector<BFloat16>(x.size(), kPoison));
    device.make(device_slots.data(), rows, stream());
    permute_cuda(c.hidden, c.top_k, device, device_x.data(), device_rows.data(), stream());
    unpermute_cuda(c.hidden, c.top_k, device, device_rows.data(), device_weights.data(),
                   device_y.data(), stream());
    EXPECT_EQ(floats(on_host(device_rows.data(), rows * c.hidden)), expected);

    double error = 0.0;
    double norm = 0.0;
    const auto y = on_host(device_y.data(), x.size());
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double difference = static_cast<double>(y[i].value() - expected_y[i]);
      error += difference * difference;
      norm += static_cast<double>(expected_y[i]) * static_cast<double>(expected_y[i]);
    }
    EXPECT_LE(error, 4e-3 * 4e-3 * norm);  // one rounding to 8 bits; a NaN fails
  }
}

/// Arrays that begin off a multiple of 16 bytes take narrower vectors.
TEST_F(TokenExchangeCuda, ArraysMayBeginAtAnyWord) {
  const std::size_t hidden = 264;
  const std::vector<std::int32_t> slots{2, 0, 1, 1, 0, 2};
  const auto x = random_rows(3, 3 * hidden + 2);
  const auto device_x = on_device(x);
  const auto device_rows = on_device(std::vector<BFloat16>(6 * hidden + 4, kPoison));
  const auto device_slots = on_device(slots);
  DevicePlan device(6, 3);
  device.make(device_slots.data(), 6, stream());
  permute_cuda(hidden, 2, device, device_x.data() + 2, device_rows.data() + 4, stream());
  const auto rows = on_host(device_rows.data(), device_rows.size());
  const std::vector<std::size_t> token_of_place{0, 2, 1, 1, 0, 2};
  for (std::size_t i = 0; i < 6 * hidden; ++i) {
    ASSERT_EQ(rows[4 + i], x[2 + token_of_place[i / hidden] * hidden + i % hidden]) << i;
  }
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(rows[i], kPoison);
  }
}

TEST_F(TokenExchangeCuda, GroupAndUngroupAgreeWithTheCpu) {
  struct Shape {
    std::size_t sources, slots, hidden, most;
  };
  for (const Shape& s : {Shape{1, 1, 8, 5}, Shape{2, 3, 6, 4}, Shape{8, 32, 2880, 6},
                         Shape{64, 33, 16, 3}, Shape{3, 300, 514, 2}, Shape{4, 4, 64, 1}}) {
    SCOPED_TRACE(testing::Message() << s.sources << " x " << s.slots);
    std::vector<std::int64_t> counts(s.sources * s.slots);
    for (std::size_t i = 0; i < counts.size(); ++i) {  // below(1) is 0: no rows at all
      counts[i] = static_cast<std::int64_t>(RandomKey(4)[s.sources][i].below(s.most));
    }
    if (s.most > 1) {
      counts[counts.size() / 2] = 200;  // a hot expert
    }
    const auto rows =
        static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    const auto from = random_rows(5 + s.slots, rows * s.hidden);
    std::vector<float> expected(from.size());
    std::vector<std::int64_t> next(s.slots);
    group_cpu(s.hidden, counts, next, floats(from), expected);

    DeviceGrouping grouping(s.sources, s.slots, rows + 3);
    const auto device_counts = on_device(counts);
    const auto device_from = on_device(from);
    const auto grouped = on_device(std::vector<BFloat16>(from.size(), kPoison));
    const auto back = on_device(std::vector<BFloat16>(from.size(), kPoison));
    grouping.make(device_counts.data(), rows, stream());
    group_cuda(s.hidden, grouping, device_from.data(), grouped.data(), stream());
    ungroup_cuda(s.hidden, grouping, grouped.data(), back.data(), stream());
    EXPECT_EQ(floats(on_host(grouped.data(), from.size())), expected);
    EXPECT_EQ(on_host(back.data(), from.size()), from);
    std::vector<std::int64_t> sums(s.slots);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      sums[i % s.slots] += counts[i];
    }
    EXPECT_EQ(on_host(grouping.rows_per_slot(), s.slots), sums);
  }
}

TEST_F(TokenExchangeCuda, WorksInAGraphWithOtherSlotsEachTime) {
  const Case c{1024, 200, 8, 64};
  const std::size_t rows = c.tokens * c.top_k;
  DevicePlan device(rows, c.slots);
  const DeviceArray<std::int32_t> device_slots(rows);
  const auto x = random_rows(6, c.tokens * c.hidden);
  const auto device_x = on_device(x);
  const DeviceArray<BFloat16> device_rows(rows * c.hidden);
  const auto graph = cuda::Graph::of(stream(), [&] {
    device.make(device_slots.data(), rows, stream());
    permute_cuda(c.hidden, c.top_k, device, device_x.data(), device_rows.data(), stream());
  });
  for (const std::uint64_t key : {7U, 8U}) {
    const auto slots = random_slots(key, c, false);
    cuda::to_device(std::span<const std::int32_t>(slots), device_slots.data(), stream());
    graph.launch(stream());
    Permutation permutation(rows, c.slots);
    plan(slots, permutation);
    std::vector<float> expected(rows * c.hidden);
    permute_cpu(c.hidden, c.top_k, permutation, floats(x), expected);
    EXPECT_EQ(floats(on_host(device_rows.data(), rows * c.hidden)), expected);
  }
}

TEST_F(TokenExchangeCuda, RefusesWhatItCannotDo) {
  EXPECT_THROW(DevicePlan(10, 0), InputError);
  EXPECT_THROW(DevicePlan(std::size_t{1} << 31U, 4), InputError);
  EXPECT_THROW(DeviceGrouping(0, 1, 1), InputError);
  DevicePlan device(6, 2);
  const auto slots = on_device(std::vector<std::int32_t>(7, 0));
  EXPECT_THROW(device.make(slots.data(), 7, stream()), InputError);
  device.make(slots.data(), 6, stream());
  const DeviceArray<BFloat16> rows(7 * 16);
  EXPECT_THROW(permute_cuda(7, 1, device, rows.data(), rows.data(), stream()), InputError);
  EXPECT_THROW(permute_cuda(8, 4, device, rows.data(), rows.data(), stream()), InputError);
  EXPECT_THROW(permute_cuda(8, 2, device, rows.data() + 1, rows.data(), stream()), InputError);
}

}  // namespace
}  // namespace moevar::token_exchange
