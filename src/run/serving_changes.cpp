#include "run/serving_changes.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <optional>

#include "serving/metrics.hpp"
#include "stats/quantiles.hpp"

namespace moevar::run {

namespace {

using record::Change;
using record::ServingRecord;

/// Straggler tax of the steps [first, last).
class Taxes {
 public:
  explicit Taxes(const timeline::LayerTotals& totals) {
    const double devices = totals.devices;
    for (std::size_t step = 0; step < totals.layer_ns.extent(0); ++step) {
      layers_.push_back(layers_.back() + devices * sum(totals.layer_ns.row(step)));
      busy_.push_back(busy_.back() + sum(totals.busy_sum_ns.row(step)));
    }
  }
  [[nodiscard]] std::size_t steps() const noexcept { return layers_.size() - 1; }
  [[nodiscard]] double over(std::size_t first, std::size_t last) const {
    const double busy = busy_[last] - busy_[first];
    return busy > 0.0 ? (layers_[last] - layers_[first]) / busy - 1.0 : 0.0;
  }

 private:
  static double sum(std::span<const Nanoseconds> values) {
    return static_cast<double>(std::reduce(values.begin(), values.end(), Nanoseconds{0}));
  }
  std::vector<double> layers_{0.0};  ///< sums up to each step
  std::vector<double> busy_{0.0};
};

void judge_tax(Change& change, const ServingRecord& run, const Taxes& taxes, double until_s) {
  const auto step_at = [&](double time_s) {
    return static_cast<std::size_t>(
        std::ranges::lower_bound(run.steps, time_s, {}, &record::ServingStep::start_s) -
        run.steps.begin());
  };
  constexpr double kRose = 1.1;
  constexpr double kBack = 0.25;
  const std::size_t at = step_at(change.at_s);
  const std::size_t end = step_at(until_s);
  if (at > 0) {
    change.tax_before = taxes.over(at - std::min(at, kTaxSteps), at);
  }
  if (end < at + kTaxSteps) {
    return;  // too short to say anything
  }
  std::size_t peak_at = at + kTaxSteps;
  for (std::size_t last = at + kTaxSteps; last <= end; ++last) {
    const double tax = taxes.over(last - kTaxSteps, last);
    if (!change.tax_peak || tax > *change.tax_peak) {
      change.tax_peak = tax;
      peak_at = last;
    }
  }
  change.tax_end = taxes.over(end - kTaxSteps, end);
  if (!change.tax_before) {
    return;
  }
  if (*change.tax_peak <= kRose * *change.tax_before) {
    change.recovered_after_s = 0.0;
    return;
  }
  const double back = *change.tax_before + kBack * (*change.tax_peak - *change.tax_before);
  for (std::size_t last = peak_at; last <= end; ++last) {
    if (taxes.over(last - kTaxSteps, last) <= back) {
      const auto& step = run.steps[last - 1];
      change.recovered_after_s =
          step.start_s + 1e-9 * static_cast<double>(step.layers_ns + step.rest_ns) - change.at_s;
      return;
    }
  }
}

void judge_moves(Change& change, const ServingRecord& run, double until_s) {
  for (const auto& move : run.rearrangements) {
    if (move.at_s >= change.at_s && move.at_s < until_s) {
      const bool of_it =
          change.device ? std::ranges::count(move.devices, *change.device) > 0 : move.of_loads;
      if (of_it && !change.noticed_after_s) {
        change.noticed_after_s = move.at_s - change.at_s;
      }
      change.moved_experts += move.moved_experts;
      change.stopped_ms += move.migrate_ms;
    }
  }
}

void judge_requests(Change& change, const ServingRecord& run, double until_s) {
  constexpr double kBefore_s = 5.0;
  std::vector<double> before_ms;
  for (const auto& request : run.requests) {
    const double ttft_ms = serving::ttft_ms(request);
    if (request.intended_s >= change.at_s - kBefore_s && request.intended_s < change.at_s) {
      before_ms.push_back(ttft_ms);
    } else if (request.intended_s >= change.at_s && request.intended_s <= until_s) {
      change.ttft_peak_ms = std::max(change.ttft_peak_ms.value_or(ttft_ms), ttft_ms);
    }
  }
  if (!before_ms.empty()) {
    change.ttft_before_ms = stats::quantiles(before_ms, std::array{stats::kMedian}).front();
  }
}

}  // namespace

void judge_changes(std::span<Change> changes, const ServingRecord& run,
                   const timeline::LayerTotals& totals) {
  const Taxes taxes(totals);
  // once nobody comes any more, steps become small and tell of nothing else
  const double last_s = run.requests.empty() ? 0.0 : run.requests.back().intended_s;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    const double until_s = i + 1 < changes.size() ? changes[i + 1].at_s : last_s;
    judge_tax(changes[i], run, taxes, until_s);
    judge_moves(changes[i], run, until_s);
    judge_requests(changes[i], run, until_s);
  }
}

}  // namespace moevar::run
