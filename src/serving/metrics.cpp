#include "serving/metrics.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.hpp"
#include "stats/autocorrelation.hpp"
#include "stats/quantiles.hpp"

namespace moevar::serving {

namespace {

constexpr double kMsPerS = 1e3;

void check(std::span<const Served> served) {
  if (served.empty()) {
    throw CheckError("metrics: no requests; expected at least one");
  }
  double before_s = 0.0;
  for (std::size_t i = 0; i < served.size(); ++i) {
    const Served& request = served[i];
    const std::array times{before_s, request.intended_s, request.started_s, request.first_token_s,
                           request.finished_s};
    // of NaN, every comparison is false
    const auto falls = [](double a, double b) { return !(a <= b); };
    if (std::ranges::adjacent_find(times, falls) != times.end() ||
        !(request.finished_s > request.intended_s) || !std::isfinite(request.finished_s)) {
      throw CheckError(fmt::format(
          "metrics: request {} arrived at {} s, started at {}, gave its first token at {} and its "
          "last at {}; expected times in this order from {} s on, and a finish after the arrival",
          i, request.intended_s, request.started_s, request.first_token_s, request.finished_s,
          before_s));
    }
    before_s = request.intended_s;
  }
}

/// As how many independent values the series of whether `holds` is true counts.
template <class T, class Holds>
double effective_size(std::span<const T> values, const Holds& holds) {
  std::vector<double> series(values.size());
  std::ranges::transform(values, series.begin(),
                         [&](const T& value) { return holds(value) ? 1.0 : 0.0; });
  return stats::effective_sample_size(series);
}

/// `series` in order of arrival, `sorted` the same by size; `most_independent`: of its mean.
Estimate estimate_quantile(std::span<const double> series, const std::vector<double>& sorted,
                           double most_independent, stats::Fraction p) {
  const auto at = [&](stats::Fraction fraction) {
    return sorted[stats::nearest_rank(fraction, sorted.size()) - 1];
  };
  Estimate estimate{at(p), std::nullopt, std::nullopt};
  const auto independent = static_cast<std::size_t>(
      std::min(most_independent,
               effective_size(series, [&](double value) { return value <= estimate.value; })));
  if (const auto ranks = stats::quantile_interval(p, independent)) {
    const auto fraction = [&](std::size_t rank) {
      return stats::Fraction{static_cast<std::int64_t>(rank),
                             static_cast<std::int64_t>(independent)};
    };
    estimate.low = at(fraction(ranks->lower));
    estimate.high = at(fraction(ranks->upper));
  }
  return estimate;
}

Latency estimate_latency(const std::vector<double>& series) {
  std::vector<double> sorted = series;
  std::ranges::sort(sorted);
  const double independent = stats::effective_sample_size(series);
  return {.p50 = estimate_quantile(series, sorted, independent, stats::kMedian),
          .p90 = estimate_quantile(series, sorted, independent, stats::kP90),
          .p99 = estimate_quantile(series, sorted, independent, stats::kP99),
          .n = series.size(),
          .independent = independent};
}

/// 0.975 quantile of Student's t, within 0.1 % from 3 degrees of freedom on.
/// Source: Abramowitz and Stegun, 26.7.5.
double student_quantile(double degrees) {
  constexpr double kNormal = 1.959963984540054;
  constexpr double z2 = kNormal * kNormal;
  constexpr std::array terms{
      kNormal * (z2 + 1.0) / 4.0, kNormal * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0,
      kNormal * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0,
      kNormal * ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) / 92160.0};
  double sum = 0.0;
  for (std::size_t i = terms.size(); i-- > 0;) {
    sum = (sum + terms[i]) / degrees;
  }
  return kNormal + sum;
}

/// Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA
/// 22(158), 1927; with Student's t, for the sample size is an estimate too.
Estimate estimate_share(double share, double independent) {
  constexpr double kFewest = 4.0;
  if (independent < kFewest) {
    return {share, std::nullopt, std::nullopt};
  }
  const double t = student_quantile(independent - 1.0);
  const double t2 = t * t / independent;
  const double centre = (share + 0.5 * t2) / (1.0 + t2);
  const double half = std::sqrt(t2 * (share * (1.0 - share) + 0.25 * t2)) / (1.0 + t2);
  return {share, std::clamp(centre - half, 0.0, share), std::clamp(centre + half, share, 1.0)};
}

/// Mean number of requests that have arrived and not finished, from 0 to the last finish.
double count_in_system(std::span<const Served> served) {
  std::vector<double> finishes(served.size());
  std::ranges::transform(served, finishes.begin(), &Served::finished_s);
  std::ranges::sort(finishes);
  double integral = 0.0;
  double now_s = 0.0;
  std::size_t arrived = 0;
  for (std::size_t finished = 0; finished < finishes.size();) {
    const bool arrives =
        arrived < served.size() && served[arrived].intended_s <= finishes[finished];
    const double next_s = arrives ? served[arrived].intended_s : finishes[finished];
    integral += static_cast<double>(arrived - finished) * (next_s - now_s);
    now_s = next_s;
    ++(arrives ? arrived : finished);
  }
  return integral / finishes.back();
}

}  // namespace

double ttft_ms(const Served& request) noexcept {
  return (request.first_token_s - request.intended_s) * kMsPerS;
}

std::optional<double> tpot_ms(const Served& request) noexcept {
  if (request.output_tokens < 2) {
    return std::nullopt;
  }
  return (request.finished_s - request.first_token_s) * kMsPerS / (request.output_tokens - 1);
}

double e2e_ms(const Served& request) noexcept {
  return (request.finished_s - request.intended_s) * kMsPerS;
}

bool keeps(const Served& request, const Slo& slo) noexcept {
  return ttft_ms(request) <= slo.ttft_ms && tpot_ms(request).value_or(0.0) <= slo.tpot_ms;
}

double attainment(std::span<const Served> served, const Slo& slo) {
  const auto kept =
      std::ranges::count_if(served, [&](const Served& request) { return keeps(request, slo); });
  return static_cast<double>(kept) / static_cast<double>(served.size());
}

Metrics measure(std::span<const Served> served, const Slo& slo) {
  check(served);
  std::vector<double> ttft;
  std::vector<double> tpot;
  std::vector<double> e2e;
  ttft.reserve(served.size());
  tpot.reserve(served.size());
  e2e.reserve(served.size());
  double output_tokens = 0.0;
  Metrics metrics;
  metrics.requests = served.size();
  for (const Served& request : served) {
    ttft.push_back(ttft_ms(request));
    e2e.push_back(e2e_ms(request));
    if (const auto time = tpot_ms(request)) {
      tpot.push_back(*time);
    }
    output_tokens += request.output_tokens;
    metrics.duration_s = std::max(metrics.duration_s, request.finished_s);
  }
  metrics.ttft_ms = estimate_latency(ttft);
  metrics.e2e_ms = estimate_latency(e2e);
  if (!tpot.empty()) {
    metrics.tpot_ms = estimate_latency(tpot);
  }
  double independent =
      effective_size(served, [&](const Served& request) { return keeps(request, slo); });
  if (std::isfinite(slo.ttft_ms)) {
    independent = std::min(independent, metrics.ttft_ms.independent);
  }
  if (std::isfinite(slo.tpot_ms) && metrics.tpot_ms) {
    independent = std::min(independent, metrics.tpot_ms->independent);
  }
  metrics.attainment = estimate_share(attainment(served, slo), independent);

  const auto n = static_cast<double>(served.size());
  metrics.throughput_rps = n / metrics.duration_s;
  metrics.goodput_rps = metrics.attainment.value * metrics.throughput_rps;
  if (served.back().intended_s > 0.0) {
    metrics.arrival_rps = n / served.back().intended_s;
  }
  metrics.output_tokens_per_s = output_tokens / metrics.duration_s;
  metrics.mean_in_system = count_in_system(served);
  const double by_littles_law = metrics.throughput_rps * *stats::mean(e2e) / kMsPerS;
  metrics.little_error = std::abs(metrics.mean_in_system / by_littles_law - 1.0);
  return metrics;
}

}  // namespace moevar::serving
