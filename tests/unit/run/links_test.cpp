#include <gtest/gtest.h>

#include "base/units.hpp"
#include "exchange/cost_model.hpp"
#include "fleet/gpu_family.hpp"
#include "run/model_backend.hpp"

namespace moevar::run {
namespace {

// DeepEP's low-latency dispatch on H800: 128 tokens, top 8, 7168 bytes each (FP8).
TEST(Links, OfTheH100PresetReproducePublishedLowLatencyDispatch) {
  const auto links = links_of(fleet::find_family("h100-sxm5"));
  const auto dispatch_us = [&](int devices) {
    return ns_to_us(exchange::AllToAllCost(links, devices, 7168).time_ns(1024));
  };
  EXPECT_NEAR(dispatch_us(8), 77, 0.02 * 77);
  EXPECT_NEAR(dispatch_us(256), 194, 0.02 * 194);
  // not fitted: between them the published row lies at 155, 173 and 192 us
  EXPECT_NEAR(dispatch_us(32), 155, 0.1 * 155);
  EXPECT_NEAR(dispatch_us(64), 173, 0.1 * 173);
  EXPECT_NEAR(dispatch_us(128), 192, 0.05 * 192);
}

}  // namespace
}  // namespace moevar::run
