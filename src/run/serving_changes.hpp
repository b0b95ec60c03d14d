#pragma once

#include <span>
#include <vector>

#include "record/serving_record.hpp"
#include "serving/scheduler.hpp"
#include "timeline/timeline.hpp"

namespace moevar::run {

/// Steps over which a run's straggler tax is averaged when it is asked whether it is back.
inline constexpr std::size_t kTaxSteps = 50;

/// Fills in what came of each change, whose `what` and `at_s` are given in order of time, from a
/// run's steps, their totals (a row each), its moves and its requests, up to the next change or
/// the last arrival. Pure.
void judge_changes(std::span<record::Change> changes, const record::ServingRecord& run,
                   const timeline::LayerTotals& totals);

}  // namespace moevar::run
