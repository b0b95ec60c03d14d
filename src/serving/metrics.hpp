#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <span>

#include "serving/scheduler.hpp"

namespace moevar::serving {

/// A value with its 95 % interval; no interval where there are too few independent values for one.
struct Estimate {
  double value = 0.0;
  std::optional<double> low;
  std::optional<double> high;
};

/// Quantiles (nearest rank) of one latency over requests in order of arrival. Requests that queue
/// together are alike: the interval of quantile q has the ranks of as many independent values as
/// the series counts for, or that of "is at most q" where those are fewer
/// (stats::effective_sample_size). Simulated at loads up to 0.9, some 5 % of the runs or fewer
/// state an interval that misses; of those that barely have values enough for one, it is a larger
/// share.
struct Latency {
  Estimate p50;
  Estimate p90;
  Estimate p99;
  std::size_t n = 0;
  double independent = 0.0;  ///< effective sample size of the series
};

/// What a request must keep to count as served well.
struct Slo {
  double ttft_ms = std::numeric_limits<double>::infinity();
  double tpot_ms = std::numeric_limits<double>::infinity();
};

/// Time to first token: from the intended time, so that waiting counts (no coordinated omission).
[[nodiscard]] double ttft_ms(const Served& request) noexcept;
/// Time per output token after the first; empty for a request of one output token.
[[nodiscard]] std::optional<double> tpot_ms(const Served& request) noexcept;
/// Intended time to last token.
[[nodiscard]] double e2e_ms(const Served& request) noexcept;
/// Both within the limits; a request without a TPOT keeps its limit.
[[nodiscard]] bool keeps(const Served& request, const Slo& slo) noexcept;

/// Share of requests that keep the SLO: ViBE's goodput (arXiv 2606.00735). `served` is not empty.
double attainment(std::span<const Served> served, const Slo& slo);

struct Metrics {
  std::size_t requests = 0;
  Latency ttft_ms;
  std::optional<Latency> tpot_ms;  ///< empty where no request has more than one output token
  Latency e2e_ms;
  /// Interval: Wilson's with Student's t and the effective sample size of the series of "keeps", or
  /// of a latency with a limit where that is smaller; none below 4. Requests of one queue keep or
  /// miss together: at a load of 0.9, 1000 of them count for some 20, and near saturation, where
  /// few busy periods fit into a run, the interval covers about 90 % instead of 95 %.
  Estimate attainment;
  double duration_s = 0.0;      ///< from 0 to the last finish
  double goodput_rps = 0.0;     ///< requests that keep the SLO per second of the duration
  double throughput_rps = 0.0;  ///< requests per second of the duration
  /// Requests per second from 0 to the last arrival; never below the two above. Empty where all
  /// arrive at 0.
  std::optional<double> arrival_rps;
  double output_tokens_per_s = 0.0;
  double mean_in_system = 0.0;  ///< requests, over the duration
  /// Little's law: relative difference of mean_in_system, counted at arrivals and finishes, from
  /// throughput_rps × mean e2e. The run starts and ends empty, so nothing but rounding is left.
  double little_error = 0.0;
};

/// `served`: all requests of a run that is done, in order of arrival. Throws CheckError where there
/// are none, or where a request's times are missing or out of order.
Metrics measure(std::span<const Served> served, const Slo& slo);

}  // namespace moevar::serving
