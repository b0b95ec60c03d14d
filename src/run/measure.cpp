#include "run/measure.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "run/join.hpp"
#include "stats/autocorrelation.hpp"
#include "stats/quantiles.hpp"
#include "timeline/timeline.hpp"

namespace moevar::run {

namespace {

using Series = std::vector<double>;  ///< one value per step

/// Half the width of the median's interval ÷ the median; infinite where there is no interval yet.
double relative_half_width(const Series& series) {
  const auto n = series.size();
  const auto effective =
      std::max<std::size_t>(1, static_cast<std::size_t>(stats::effective_sample_size(series)));
  const auto ranks = stats::quantile_interval(stats::kMedian, effective);
  if (n < kFewestSteps || !ranks) {
    return std::numeric_limits<double>::infinity();
  }
  // the interval's ends as fractions of the sample
  const auto fraction = [&](std::size_t rank) {
    return stats::Fraction{static_cast<std::int64_t>(rank), static_cast<std::int64_t>(effective)};
  };
  const std::array ends{fraction(ranks->lower), stats::kMedian, fraction(ranks->upper)};
  const auto at = stats::quantiles(series, ends);
  return at[1] > 0.0 ? (at[2] - at[0]) / 2.0 / at[1] : 0.0;
}

/// Step times in which this rank looks for precision: of the experts of each of its devices and, on
/// rank 0, of the fleet's layers.
class Watched {
 public:
  explicit Watched(bool whole_layer) : whole_layer_(whole_layer) {}

  void add(const PhaseResult& result) {
    const auto& mine = result.mine;
    series_.resize(mine.devices() + (whole_layer_ ? 1 : 0));
    for (std::size_t step = 0; step < mine.steps(); ++step) {
      for (std::size_t d = 0; d < mine.devices(); ++d) {
        series_[d].push_back(sum(mine.expert_ns.row(d, step)));
      }
      if (whole_layer_) {
        series_.back().push_back(sum(result.totals.layer_ns.row(step)));
      }
    }
  }

  [[nodiscard]] double widest() const {
    double widest = 0.0;
    for (const auto& series : series_) {
      widest = std::max(widest, relative_half_width(series));
    }
    return widest;
  }

 private:
  static double sum(std::span<const Nanoseconds> values) {
    double total = 0.0;
    for (const Nanoseconds value : values) {
      total += static_cast<double>(value);
    }
    return total;
  }

  bool whole_layer_;
  std::vector<Series> series_;
};

/// Looks at the steps so far, the same on every rank.
class StopRule {
 public:
  explicit StopRule(const study::Phases& rule) : rule_(rule) {}

  /// Why to stop after `steps`, empty: go on. `widest`: over all ranks.
  std::string reason(std::size_t steps, double widest, bool out_of_time) {
    looks_.emplace_back(steps, widest);
    if (widest <= rule_.precision) {
      return "precision";
    }
    if (out_of_time) {
      return "time_limit";
    }
    if (steps >= static_cast<std::size_t>(rule_.max_steps)) {
      return "max_n";
    }
    return gains_no_more(steps, widest) ? "no_further_gain" : "";
  }

 private:
  /// Independent steps would have made the interval half as wide since a quarter as many.
  [[nodiscard]] bool gains_no_more(std::size_t steps, double widest) const {
    constexpr std::size_t kFewest = 1024;
    constexpr double kHardly = 0.9;
    const auto before =
        std::ranges::find_if(looks_, [&](const auto& look) { return 4 * look.first >= steps; });
    // no interval then and now is no gain either
    return steps >= kFewest && 2 * before->first <= steps && !(widest < kHardly * before->second);
  }

  const study::Phases& rule_;
  std::vector<std::pair<std::size_t, double>> looks_;  ///< steps, widest interval
};

/// Steps [first, first + count) of a phase; `loads` is filled with theirs.
PhaseSteps part_of(const PhaseSteps& all, std::size_t first, std::size_t count,
                   workload::Loads& loads) {
  const std::size_t row = all.loads.extent(1) * all.loads.extent(2);
  loads = workload::Loads({count, all.loads.extent(1), all.loads.extent(2)});
  std::ranges::copy(all.loads.flat().subspan(first * row, count * row), loads.flat().begin());
  return {.phase = all.phase,
          .first_step = all.first_step + static_cast<std::int64_t>(first),
          .warmup_steps = first == 0 ? all.warmup_steps : 0,
          .tokens = all.tokens,
          .routing = all.routing,
          .loads = loads,
          .placements =
              all.placements.size() == 1 ? all.placements : all.placements.subspan(first, count),
          .ran_before = first};
}

}  // namespace

Measured measure(const mpi::Communicator& comm, const study::Phases& rule, Backend& backend,
                 const PhaseSteps& all) {
  if (rule.precision == 0.0) {
    return {backend.run(all), "fixed"};
  }
  StopRule stop(rule);
  Watched watched(comm.is_root());
  std::vector<PhaseResult> blocks;
  std::vector<Nanoseconds> ends_ns;
  double elapsed_s = 0.0;
  Measured measured;
  measured.stop_reason.clear();
  for (std::size_t first = 0; measured.stop_reason.empty();) {
    const auto count = std::min(static_cast<std::size_t>(rule.steps), all.loads.extent(0) - first);
    workload::Loads loads;
    blocks.push_back(backend.run(part_of(all, first, count, loads)));
    watched.add(blocks.back());
    first += count;
    // no rank goes by its own devices alone, and none by its own clock
    double widest = watched.widest();
    comm.all_reduce_max(std::span(&widest, 1));
    ends_ns.push_back(end_of(blocks.back()));
    comm.all_reduce_max(std::span(&ends_ns.back(), 1));
    elapsed_s += 1e-9 * static_cast<double>(ends_ns.back());
    measured.stop_reason =
        stop.reason(first, widest, rule.time_limit_s > 0.0 && elapsed_s >= rule.time_limit_s);
  }
  measured.result = join(std::move(blocks), ends_ns);
  return measured;
}

}  // namespace moevar::run
