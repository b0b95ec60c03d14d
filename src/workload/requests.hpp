#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace moevar::workload {

/// One request as a user sends it.
struct Request {
  double arrival_s = 0.0;  ///< since the run's start
  std::int32_t input_tokens = 1;
  std::int32_t output_tokens = 1;
  int kind = 0;  ///< which of RequestSpec::lengths it comes from; 0 where recorded
};

/// Gaps between arrivals: exponential; gamma of the same mean; all equal.
enum class Arrivals { poisson, bursty, uniform };

/// Distributions of a request's lengths in tokens; input and output are independent.
///
/// sonnet: about 1024 in, 128 out. vLLM's benchmark joins a fixed prefix and random lines of a poem
/// until they hold about the tokens asked for, and lets every answer run to its limit. So the
/// output is constant, and the input is the sum of some 75 lines of about 11 tokens that scatter
/// little (by 1.6 tokens: our estimate): normal with standard deviation kSonnetInputDeviation,
/// rounded.
///
/// sharegpt: means of 219.2 in and 200.8 out (ViBE's sample, arXiv 2606.00735). Lengths of
/// conversations have a long tail; vLLM's sampler leaves out those below 4 tokens, prompts above
/// 1024 and pairs above 2048. So both are lognormal, truncated to [4, 1024], with the location that
/// gives the mean after truncation. The paper gives no spread: kShareGptSigma is a choice. With it
/// the standard deviations are 219 and 210, the medians 138 and 122; from sigma 1 to 2 the former
/// go from 0.9 to 1.2 times the mean alone, for truncation binds.
///
/// fixed: RequestSpec::fixed_input and fixed_output.
enum class Lengths { sonnet, sharegpt, fixed };

inline constexpr double kSonnetInputTokens = 1024.0;
inline constexpr double kSonnetInputDeviation = 14.0;
inline constexpr std::int32_t kSonnetOutputTokens = 128;
inline constexpr double kShareGptInputMean = 219.2;
inline constexpr double kShareGptOutputMean = 200.8;
inline constexpr double kShareGptSigma = 1.3;
inline constexpr std::int32_t kShareGptFewest = 4;
inline constexpr std::int32_t kShareGptMost = 1024;

/// Longer than any model's context.
inline constexpr std::int32_t kMostTokens = 16'777'216;

struct RequestSpec {
  std::int64_t count = 1000;
  double rate_rps = 1.0;  ///< mean number of arrivals per second
  Arrivals arrivals = Arrivals::poisson;
  /// Shape of the gamma distribution of `bursty`'s gaps, as vLLM's --burstiness: 1 is Poisson,
  /// below it is burstier. Squared coefficient of variation: 1 ÷ burstiness.
  double burstiness = 1.0;
  /// One after the other, each over an equal share of the requests.
  std::vector<Lengths> lengths{Lengths::sharegpt};
  std::int32_t fixed_input = 1;
  std::int32_t fixed_output = 1;
};

/// Requests in order of arrival, the first one after one gap. Request i is a function of the spec,
/// the seed and i: arrivals are those of rate 1 divided by the rate, and lengths don't depend on
/// arrivals, so two rates, or two arrival processes, send the same requests (common random
/// numbers). Throws InputError for a spec out of range.
std::vector<Request> make_requests(const RequestSpec& spec, std::uint64_t seed);

/// Reads a CSV of requests with the columns arrival,input,output or, as in Azure's published
/// traces, TIMESTAMP,ContextTokens,GeneratedTokens. An arrival is a number of seconds from 0 on or
/// a date-time YYYY-MM-DD HH:MM:SS[.fraction][Z or +HH:MM], alike in all rows. The first becomes 0.
/// Throws InputError, "path, row N: ...": arrivals out of order, negative, not finite or no
/// date-time; lengths outside 1 .. kMostTokens; wrong columns; no rows. Equal arrivals are fine.
std::vector<Request> recorded_requests(const std::string& text, const std::string& path);

/// Requests per second of the time from 0 to the last arrival; infinite where that is 0.
double mean_rate_rps(std::span<const Request> requests);

/// Multiplies arrivals so that mean_rate_rps() becomes `rate_rps`; their pattern stays. Throws
/// InputError for a rate that is not positive and finite, and where all requests arrive at 0.
void rescale(std::vector<Request>& requests, double rate_rps);

}  // namespace moevar::workload
