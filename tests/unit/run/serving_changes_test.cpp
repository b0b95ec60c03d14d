#include "run/serving_changes.hpp"

#include <gtest/gtest.h>

namespace moevar::run {
namespace {

constexpr std::size_t kSteps = 600;

/// Steps of a second each; their tax, on two devices with one layer.
template <class Tax>
timeline::LayerTotals totals_with(const Tax& tax) {
  timeline::LayerTotals totals(kSteps, 1);
  totals.devices = 2;
  for (std::size_t step = 0; step < kSteps; ++step) {
    totals.layer_ns(step, 0) = 1'000'000;
    totals.busy_sum_ns(step, 0) = static_cast<Nanoseconds>(2e6 / (1.0 + tax(step)));
  }
  return totals;
}

record::ServingRecord run_of_steps() {
  record::ServingRecord run;
  for (std::size_t step = 0; step < kSteps; ++step) {
    const auto start_s = static_cast<double>(step);
    run.steps.push_back({.start_s = start_s, .layers_ns = 600'000'000, .rest_ns = 400'000'000});
    run.requests.push_back({.intended_s = start_s,
                            .started_s = start_s,
                            .first_token_s = start_s + (step == 320 ? 9.0 : 0.5),
                            .finished_s = start_s + 10.0,
                            .input_tokens = 1,
                            .output_tokens = 2});
  }
  return run;
}

TEST(ServingChanges, ATaxThatComesBackIsRecovered) {
  // up at 300, back from 400 on; 50 steps, k of them before 400, have a tax of 0.2, a quarter of
  // the rise above 0.1, or less where k / 1.5 + (50 - k) / 1.1 >= 50 / 1.2: k <= 15, up to step 434
  const auto totals =
      totals_with([](std::size_t step) { return step >= 300 && step < 400 ? 0.5 : 0.1; });
  auto run = run_of_steps();
  run.rearrangements = {
      {.at_s = 100.0, .because = "before", .moved_experts = 99, .devices = {3}},
      {.at_s = 305.0, .because = "another", .moved_experts = 1, .of_loads = true, .devices = {2}},
      {.at_s = 310.0, .because = "it", .moved_experts = 4, .migrate_ms = 2.0, .devices = {1, 3}},
      {.at_s = 350.0, .because = "again", .moved_experts = 7, .migrate_ms = 3.0, .devices = {3}}};
  std::vector<record::Change> changes{{.what = "a change", .device = 3, .at_s = 300.0}};
  judge_changes(changes, run, totals);
  const auto& change = changes.front();
  EXPECT_NEAR(change.tax_before.value(), 0.1, 1e-5);
  EXPECT_NEAR(change.tax_peak.value(), 0.5, 1e-5);
  EXPECT_NEAR(change.tax_end.value(), 0.1, 1e-5);
  EXPECT_EQ(change.noticed_after_s, 10.0);
  EXPECT_EQ(change.moved_experts, 12);
  EXPECT_DOUBLE_EQ(change.stopped_ms, 5.0);
  EXPECT_EQ(change.recovered_after_s, 135.0);
  EXPECT_DOUBLE_EQ(*change.ttft_before_ms, 500.0);
  EXPECT_DOUBLE_EQ(*change.ttft_peak_ms, 9000.0);
}

TEST(ServingChanges, ATaxThatStaysIsNotRecoveredAndOneThatNeverRoseIsAtOnce) {
  const auto totals = totals_with([](std::size_t step) { return step >= 300 ? 0.5 : 0.1; });
  std::vector<record::Change> changes{{.what = "nothing", .at_s = 100.0},
                                      {.what = "a change", .at_s = 300.0}};
  judge_changes(changes, run_of_steps(), totals);
  EXPECT_EQ(changes[0].recovered_after_s, 0.0);
  EXPECT_FALSE(changes[0].noticed_after_s);
  EXPECT_NEAR(changes[0].tax_end.value(), 0.1, 1e-5);
  EXPECT_FALSE(changes[1].recovered_after_s);
  EXPECT_NEAR(changes[1].tax_end.value(), 0.5, 1e-5);
}

TEST(ServingChanges, NothingIsSaidOfAChangeWithTooFewSteps) {
  const auto totals = totals_with([](std::size_t) { return 0.1; });
  std::vector<record::Change> changes{{.what = "late", .at_s = 580.0}};
  judge_changes(changes, run_of_steps(), totals);
  EXPECT_FALSE(changes[0].recovered_after_s);
  EXPECT_TRUE(changes[0].tax_before);
  EXPECT_FALSE(changes[0].tax_peak);
  EXPECT_FALSE(changes[0].tax_end);
}

TEST(ServingChanges, NothingIsComparedWithWhatWasNot) {
  const auto totals = totals_with([](std::size_t) { return 0.1; });
  std::vector<record::Change> changes{{.what = "at once", .at_s = 0.0}};
  judge_changes(changes, run_of_steps(), totals);
  EXPECT_FALSE(changes[0].tax_before);
  EXPECT_TRUE(changes[0].tax_peak);
  EXPECT_FALSE(changes[0].recovered_after_s);
}

}  // namespace
}  // namespace moevar::run
