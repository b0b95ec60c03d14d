#include "workload/requests.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace moevar::workload {
namespace {

std::vector<double> gaps(const std::vector<Request>& requests) {
  std::vector<double> values;
  values.reserve(requests.size());
  double before = 0.0;
  for (const Request& request : requests) {
    values.push_back(request.arrival_s - before);
    before = request.arrival_s;
  }
  return values;
}

struct Moments {
  double mean = 0.0;
  double deviation = 0.0;
  double standard_error = 0.0;
};
Moments moments(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0.0;
  for (const double value : values) {
    squares += (value - mean) * (value - mean);
  }
  const double deviation = std::sqrt(squares / n);
  return {mean, deviation, deviation / std::sqrt(n)};
}

/// Kolmogorov and Smirnov's distance of the values from a distribution, times sqrt(n). Above 1.95
/// in one of 1000 samples that do follow it.
double distance(std::vector<double> values, const std::function<double(double)>& cdf) {
  std::ranges::sort(values);
  const auto n = static_cast<double>(values.size());
  double widest = 0.0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double p = cdf(values[i]);
    widest = std::max({widest, p - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - p});
  }
  return widest * std::sqrt(n);
}

std::vector<double> lengths(const std::vector<Request>& requests, std::int32_t Request::*which,
                            int kind = 0) {
  std::vector<double> values;
  values.reserve(requests.size());
  for (const Request& request : requests) {
    if (request.kind == kind) {
      values.push_back(request.*which);
    }
  }
  return values;
}

RequestSpec of(Lengths which, std::int64_t count = 200'000) {
  return {.count = count, .lengths = {which}};
}

TEST(Requests, PoissonGapsAreExponential) {
  RequestSpec spec = of(Lengths::fixed);
  spec.rate_rps = 4.0;
  const auto exponential = [](double gap) { return 1.0 - std::exp(-4.0 * gap); };
  EXPECT_LT(distance(gaps(make_requests(spec, 1)), exponential), 1.95);
  spec.rate_rps = 4.1;  // a sample of this size tells them apart
  EXPECT_GT(distance(gaps(make_requests(spec, 1)), exponential), 1.95);
}

TEST(Requests, BurstyGapsHaveTheMeanOfTheRateAndASquaredVariationOfOneOverBurstiness) {
  for (const double burstiness : {0.1, 0.5, 1.0, 2.0, 10.0}) {
    RequestSpec spec = of(Lengths::fixed);
    spec.arrivals = Arrivals::bursty;
    spec.burstiness = burstiness;
    spec.rate_rps = 2.0;
    const auto gap = moments(gaps(make_requests(spec, 3)));
    EXPECT_NEAR(gap.mean, 0.5, 4.0 * gap.standard_error) << burstiness;
    const double variation = gap.deviation / gap.mean;
    // the variance of a gamma's sample variance, by its fourth moment
    const double relative_error =
        std::sqrt((2.0 + 6.0 / burstiness) / static_cast<double>(spec.count));
    EXPECT_NEAR(variation * variation * burstiness, 1.0, 4.0 * relative_error) << burstiness;
  }
}

TEST(Requests, BurstinessOneIsPoisson) {
  RequestSpec spec = of(Lengths::fixed);
  spec.arrivals = Arrivals::bursty;
  EXPECT_LT(distance(gaps(make_requests(spec, 5)), [](double gap) { return 1.0 - std::exp(-gap); }),
            1.95);
}

TEST(Requests, UniformArrivalsAreEvenlySpaced) {
  RequestSpec spec = of(Lengths::fixed, 100);
  spec.arrivals = Arrivals::uniform;
  spec.rate_rps = 8.0;
  const auto requests = make_requests(spec, 1);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(requests[i].arrival_s, static_cast<double>(i + 1) / 8.0);
  }
  EXPECT_EQ(mean_rate_rps(requests), 8.0);
}

TEST(Requests, TwoRatesSendTheSameRequests) {
  RequestSpec spec = of(Lengths::sharegpt, 1000);
  spec.rate_rps = 2.0;
  const auto slow = make_requests(spec, 7);
  spec.rate_rps = 8.0;
  const auto fast = make_requests(spec, 7);
  for (std::size_t i = 0; i < slow.size(); ++i) {
    EXPECT_EQ(slow[i].arrival_s, 4.0 * fast[i].arrival_s);
    EXPECT_EQ(slow[i].input_tokens, fast[i].input_tokens);
    EXPECT_EQ(slow[i].output_tokens, fast[i].output_tokens);
  }
}

TEST(Requests, LengthsAreThoseOfTheRequestWhateverTheArrivals) {
  RequestSpec spec = of(Lengths::sharegpt, 1000);
  const auto poisson = make_requests(spec, 7);
  spec.arrivals = Arrivals::bursty;
  spec.burstiness = 0.3;
  spec.count = 2000;
  const auto bursty = make_requests(spec, 7);
  for (std::size_t i = 0; i < poisson.size(); ++i) {
    EXPECT_NE(poisson[i].arrival_s, bursty[i].arrival_s);
    EXPECT_EQ(poisson[i].input_tokens, bursty[i].input_tokens);
    EXPECT_EQ(poisson[i].output_tokens, bursty[i].output_tokens);
  }
  spec.count = 1000;
  std::size_t equal = 0;
  const auto other_seed = make_requests(spec, 8);
  for (std::size_t i = 0; i < poisson.size(); ++i) {
    equal += poisson[i].input_tokens == other_seed[i].input_tokens ? 1U : 0U;
  }
  EXPECT_LT(equal, 50U);
}

TEST(Requests, SonnetIsNearlyConstant) {
  const auto requests = make_requests(of(Lengths::sonnet), 1);
  const auto input = moments(lengths(requests, &Request::input_tokens));
  EXPECT_NEAR(input.mean, 1024.0, 4.0 * input.standard_error);
  EXPECT_NEAR(input.deviation, kSonnetInputDeviation, 0.1);
  const auto output = moments(lengths(requests, &Request::output_tokens));
  EXPECT_EQ(output.mean, 128.0);
  EXPECT_EQ(output.deviation, 0.0);
}

TEST(Requests, ShareGptHasThePublishedMeansAndALongTail) {
  const auto requests = make_requests(of(Lengths::sharegpt), 1);
  struct Expected {
    std::int32_t Request::*which;
    double mean;
    // of the truncated lognormal in closed form, computed elsewhere
    double deviation, median, p90, p99;
  };
  for (const auto& expected :
       {Expected{&Request::input_tokens, 219.2, 219.2, 138.5, 548.9, 943.1},
        Expected{&Request::output_tokens, 200.8, 209.8, 122.2, 507.6, 928.3}}) {
    auto values = lengths(requests, expected.which);
    const auto sample = moments(values);
    EXPECT_NEAR(sample.mean, expected.mean, 4.0 * sample.standard_error);
    EXPECT_NEAR(sample.deviation, expected.deviation, 2.0);
    std::ranges::sort(values);
    const auto share_below = [&](double tokens) {
      return static_cast<double>(std::ranges::lower_bound(values, tokens) - values.begin()) /
             static_cast<double>(values.size());
    };
    // 4 standard errors of a share of 0.5 of 200,000 are 0.0045
    EXPECT_NEAR(share_below(expected.median), 0.5, 0.0045);
    EXPECT_NEAR(share_below(expected.p90), 0.9, 0.0027);
    EXPECT_NEAR(share_below(expected.p99), 0.99, 0.0009);
    EXPECT_GE(values.front(), kShareGptFewest);
    EXPECT_LE(values.back(), kShareGptMost);
  }
}

TEST(Requests, InputAndOutputAreIndependent) {
  const auto requests = make_requests(of(Lengths::sharegpt), 2);
  const auto input = lengths(requests, &Request::input_tokens);
  const auto output = lengths(requests, &Request::output_tokens);
  const auto in = moments(input);
  const auto out = moments(output);
  double products = 0.0;
  for (std::size_t i = 0; i < input.size(); ++i) {
    products += (input[i] - in.mean) * (output[i] - out.mean);
  }
  const auto n = static_cast<double>(input.size());
  EXPECT_NEAR(products / n / in.deviation / out.deviation, 0.0, 4.0 / std::sqrt(n));
}

TEST(Requests, LengthsFollowOneAnother) {
  RequestSpec spec = of(Lengths::sharegpt, 90'000);
  spec.lengths = {Lengths::sharegpt, Lengths::sonnet, Lengths::fixed};
  spec.fixed_input = 11;
  spec.fixed_output = 7;
  const auto requests = make_requests(spec, 1);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(requests[i].kind, static_cast<int>(i / 30'000));
  }
  const auto conversations = moments(lengths(requests, &Request::input_tokens, 0));
  EXPECT_NEAR(conversations.mean, 219.2, 4.0 * conversations.standard_error);
  const auto poems = moments(lengths(requests, &Request::input_tokens, 1));
  EXPECT_NEAR(poems.mean, 1024.0, 4.0 * poems.standard_error);
  EXPECT_EQ(requests.back().input_tokens, 11);
  EXPECT_EQ(requests.back().output_tokens, 7);
}

TEST(Requests, FewerRequestsThanLengths) {
  RequestSpec spec = of(Lengths::fixed, 2);
  spec.lengths = {Lengths::sharegpt, Lengths::sonnet, Lengths::sharegpt};
  const auto requests = make_requests(spec, 1);
  EXPECT_EQ(requests[0].kind, 0);
  EXPECT_EQ(requests[1].kind, 1);
}

TEST(Requests, SpecsOutOfRangeAreRefused) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto refused = [](auto change) {
    RequestSpec spec;
    change(spec);
    EXPECT_THROW(make_requests(spec, 1), InputError);
  };
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 40}) {
    refused([&](RequestSpec& spec) { spec.count = count; });
  }
  for (const double rate : {0.0, -1.0, kNan, kInfinity}) {
    refused([&](RequestSpec& spec) { spec.rate_rps = rate; });
  }
  for (const double burstiness : {0.0, -1.0, kNan, kInfinity}) {
    refused([&](RequestSpec& spec) { spec.burstiness = burstiness; });
  }
  for (const std::int32_t tokens : {0, -1, kMostTokens + 1}) {
    refused([&](RequestSpec& spec) { spec.fixed_input = tokens; });
    refused([&](RequestSpec& spec) { spec.fixed_output = tokens; });
  }
  refused([](RequestSpec& spec) { spec.lengths.clear(); });
}

TEST(Requests, RescalingKeepsThePatternAndGivesTheRate) {
  auto requests = make_requests(of(Lengths::fixed, 1000), 4);
  const auto before = requests;
  rescale(requests, 12.5);
  EXPECT_NEAR(mean_rate_rps(requests), 12.5, 1e-12 * 12.5);
  const double factor = requests.back().arrival_s / before.back().arrival_s;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_NEAR(requests[i].arrival_s, factor * before[i].arrival_s, 1e-12 * requests[i].arrival_s);
  }
}

TEST(Requests, NoRateForRequestsThatAllComeAtOnce) {
  std::vector<Request> at_once(3);
  EXPECT_TRUE(std::isinf(mean_rate_rps(at_once)));
  EXPECT_THROW(rescale(at_once, 1.0), InputError);
  auto requests = make_requests(of(Lengths::fixed, 10), 4);
  for (const double rate : {0.0, -2.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(rescale(requests, rate), InputError);
  }
}

}  // namespace
}  // namespace moevar::workload
