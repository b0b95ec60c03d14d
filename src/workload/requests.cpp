#include "workload/requests.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/random.hpp"

namespace moevar::workload {

namespace {

constexpr std::int64_t kMostRequests = 100'000'000;
constexpr double kLeastBurstiness = 0.01;
constexpr double kMostBurstiness = 1e6;

/// Levels of a request's lengths below its key.
constexpr std::uint64_t kInput = 0;
constexpr std::uint64_t kOutput = 1;

void check_number(std::string_view name, double value, double least, double most) {
  if (!(value >= least && value <= most)) {
    throw InputError(
        fmt::format("requests: {} is {}; expected {} to {}", name, value, least, most));
  }
}

void check_rate(double rate_rps) {
  if (!(rate_rps > 0.0) || !std::isfinite(rate_rps)) {
    throw InputError(fmt::format(
        "requests: the rate is {} per second; expected a positive, finite number", rate_rps));
  }
}

void check(const RequestSpec& spec) {
  check_number("count", static_cast<double>(spec.count), 1.0, static_cast<double>(kMostRequests));
  check_rate(spec.rate_rps);
  check_number("burstiness", spec.burstiness, kLeastBurstiness, kMostBurstiness);
  check_number("fixed_input", spec.fixed_input, 1.0, kMostTokens);
  check_number("fixed_output", spec.fixed_output, 1.0, kMostTokens);
  if (spec.lengths.empty()) {
    throw InputError("requests: no lengths; expected at least one distribution");
  }
}

/// Of mean 1, for shape >= 1. Source: Marsaglia and Tsang, "A simple method for generating gamma
/// variables", ACM TOMS 26(3), 2000.
double gamma_above_one(double shape, RandomKey key) {
  const double d = shape - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  for (std::uint64_t attempt = 0;; ++attempt) {
    const double x = key[attempt][0].normal();
    const double root = 1.0 + c * x;
    const double v = root * root * root;
    if (v > 0.0 &&
        std::log(key[attempt][1].uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) {
      return d * v;
    }
  }
}

/// Gamma of this shape and scale 1; below shape 1 by the boost that the paper above gives.
double gamma(double shape, RandomKey key) {
  return shape >= 1.0
             ? gamma_above_one(shape, key[0])
             : gamma_above_one(shape + 1.0, key[0]) * std::pow(key[1].uniform(), 1.0 / shape);
}

/// Time between two arrivals at rate 1.
double gap(const RequestSpec& spec, RandomKey key) {
  switch (spec.arrivals) {
    case Arrivals::poisson:
      return -std::log(key.uniform());
    case Arrivals::bursty:
      return gamma(spec.burstiness, key) / spec.burstiness;
    case Arrivals::uniform:
      break;
  }
  return 1.0;
}

double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::numbers::sqrt2); }

/// Lognormal of ShareGPT's sigma, truncated to its fewest and most tokens, of a given mean.
class ShareGptLength {
 public:
  /// The mean rises with the location from one bound to the other: bisection.
  explicit ShareGptLength(double mean_tokens) {
    double below = std::log(kShareGptFewest) - 10.0 * kShareGptSigma;
    double above = std::log(kShareGptMost) + 10.0 * kShareGptSigma;
    while (true) {
      set(std::midpoint(below, above));
      if (location_ <= below || location_ >= above) {
        return;
      }
      (mean() < mean_tokens ? below : above) = location_;
    }
  }

  [[nodiscard]] std::int32_t draw(RandomKey key) const {
    const double u = below_ + key.uniform() * (above_ - below_);
    const double tokens = std::exp(location_ + kShareGptSigma * normal_quantile(u));
    return std::clamp(static_cast<std::int32_t>(std::lround(tokens)), kShareGptFewest,
                      kShareGptMost);
  }

 private:
  void set(double location) {
    location_ = location;
    below_ = normal_cdf(standardised(kShareGptFewest));
    above_ = normal_cdf(standardised(kShareGptMost));
  }
  [[nodiscard]] double standardised(double tokens) const {
    return (std::log(tokens) - location_) / kShareGptSigma;
  }
  /// Of the truncated distribution.
  [[nodiscard]] double mean() const {
    return std::exp(location_ + 0.5 * kShareGptSigma * kShareGptSigma) *
           (normal_cdf(standardised(kShareGptMost) - kShareGptSigma) -
            normal_cdf(standardised(kShareGptFewest) - kShareGptSigma)) /
           (above_ - below_);
  }

  double location_ = 0.0;  ///< mean of the logarithm before truncation
  double below_ = 0.0;     ///< probability of fewer tokens than the fewest, before truncation
  double above_ = 1.0;     ///< of up to the most
};

class LengthSampler {
 public:
  explicit LengthSampler(const RequestSpec& spec)
      : spec_(spec), input_(kShareGptInputMean), output_(kShareGptOutputMean) {}

  void draw(RandomKey key, Request& request) const {
    switch (spec_.lengths[static_cast<std::size_t>(request.kind)]) {
      case Lengths::sonnet:
        request.input_tokens = static_cast<std::int32_t>(
            std::lround(kSonnetInputTokens + kSonnetInputDeviation * key[kInput].normal()));
        request.output_tokens = kSonnetOutputTokens;
        return;
      case Lengths::sharegpt:
        request.input_tokens = input_.draw(key[kInput]);
        request.output_tokens = output_.draw(key[kOutput]);
        return;
      case Lengths::fixed:
        request.input_tokens = spec_.fixed_input;
        request.output_tokens = spec_.fixed_output;
        return;
    }
  }

 private:
  const RequestSpec& spec_;
  ShareGptLength input_;
  ShareGptLength output_;
};

}  // namespace

std::vector<Request> make_requests(const RequestSpec& spec, std::uint64_t seed) {
  check(spec);
  const LengthSampler lengths(spec);
  const RandomKey arrival_key = random_stream(seed, Stream::request_arrival);
  const RandomKey length_key = random_stream(seed, Stream::request_length);
  std::vector<Request> requests(static_cast<std::size_t>(spec.count));
  double arrival = 0.0;  // at rate 1
  for (std::size_t i = 0; i < requests.size(); ++i) {
    arrival += gap(spec, arrival_key[i]);
    requests[i].arrival_s = arrival / spec.rate_rps;
    requests[i].kind = static_cast<int>(i * spec.lengths.size() / requests.size());
    lengths.draw(length_key[i], requests[i]);
  }
  return requests;
}

double mean_rate_rps(std::span<const Request> requests) {
  const double last_s = requests.empty() ? 0.0 : requests.back().arrival_s;
  return last_s > 0.0 ? static_cast<double>(requests.size()) / last_s
                      : std::numeric_limits<double>::infinity();
}

void rescale(std::vector<Request>& requests, double rate_rps) {
  check_rate(rate_rps);
  const double recorded_rps = mean_rate_rps(requests);
  if (!std::isfinite(recorded_rps)) {
    throw InputError(fmt::format(
        "requests: all {} arrive at once; expected arrivals over some time to give them a rate",
        requests.size()));
  }
  for (Request& request : requests) {
    request.arrival_s *= recorded_rps / rate_rps;
  }
}

}  // namespace moevar::workload
