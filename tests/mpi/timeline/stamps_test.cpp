#include "timeline/stamps.hpp"

#include <gtest/gtest.h>

namespace moevar::timeline {
namespace {

/// Two steps of two layers on clocks that are 1,000,000 ns apart. Device d enters 10 d after the
/// step's start, has its tokens at 100 + d, experts take 50 (d + 1), it exits at 600 + d (layer 0)
/// and 1200 + d (layer 1); the second step begins at 5000.
TEST(Stamps, BecomeATimelineOnTheCommonClock) {
  const auto world = mpi::Communicator::world();
  const Nanoseconds d = world.rank();
  const Nanoseconds last = world.size() - 1;
  const Nanoseconds shift = 1'000'000 * d;
  ClockFit fit;
  fit.intercept_ns = static_cast<double>(shift);
  Stamps stamps(2, 2);
  for (const std::size_t step : {0U, 1U}) {
    const Nanoseconds start = 777 + shift + static_cast<Nanoseconds>(step) * 5000;
    stamps.entered[step] = start + 10 * d;
    for (const std::size_t layer : {0U, 1U}) {
      const Nanoseconds begin = start + static_cast<Nanoseconds>(layer) * 600;
      stamps.dispatched(step, layer) = begin + 100 + d;
      stamps.arrived(step, layer) = begin + 100 + d + 50 * (d + 1);
      stamps.exited(step, layer) = begin + 600 + d;
      stamps.tokens(step, layer) = static_cast<std::uint32_t>(d + 1);
    }
  }
  const auto timeline = timeline_of(world, stamps, fit);
  ASSERT_EQ(timeline.devices(), 1U);
  for (const std::size_t step : {0U, 1U}) {
    for (const std::size_t layer : {0U, 1U}) {
      // layer 0 starts with the last entry, 10 last; layer 1 with the last exit, 600 + last
      const Nanoseconds start = layer == 0 ? 10 * last : last;
      EXPECT_EQ(timeline.dispatch_ns(0, step, layer), 100 + d - start);
      EXPECT_EQ(timeline.expert_ns(0, step, layer), 50 * (d + 1));
      EXPECT_EQ(timeline.wait_ns(0, step, layer), 51 * (last - d));
      EXPECT_EQ(timeline.combine_ns(0, step, layer), 600 + last - (100 + last + 50 * (last + 1)));
      EXPECT_EQ(timeline.arrival_ns(0, step, layer), static_cast<Nanoseconds>(step) * 5000 +
                                                         static_cast<Nanoseconds>(layer) * 600 +
                                                         100 + d + 50 * (d + 1) - 10 * last);
      EXPECT_EQ(timeline.tokens(0, step, layer), static_cast<std::uint32_t>(d + 1));
      const Nanoseconds layer_time =
          timeline.dispatch_ns(0, step, layer) + timeline.expert_ns(0, step, layer) +
          timeline.wait_ns(0, step, layer) + timeline.combine_ns(0, step, layer);
      EXPECT_EQ(layer_time, layer == 0 ? 600 + last - 10 * last : 600);
    }
  }
}

}  // namespace
}  // namespace moevar::timeline
