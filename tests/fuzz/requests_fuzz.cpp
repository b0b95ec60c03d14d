#include <cmath>
#include <vector>

#include "fuzz.hpp"
#include "workload/requests.hpp"

/// Recorded requests, as CSV.
namespace {

using namespace moevar;

void check(const std::vector<workload::Request>& requests) {
  fuzz::require(!requests.empty() && requests.front().arrival_s == 0.0,
                "the first request doesn't arrive at 0");
  double before_s = 0.0;
  for (const auto& request : requests) {
    fuzz::require(std::isfinite(request.arrival_s) && request.arrival_s >= before_s,
                  "arrivals are out of order");
    const auto usable = [](std::int32_t tokens) {
      return tokens >= 1 && tokens <= workload::kMostTokens;
    };
    fuzz::require(usable(request.input_tokens) && usable(request.output_tokens),
                  "a request has unusable lengths");
    before_s = request.arrival_s;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  std::vector<workload::Request> requests;
  if (!fuzz::accepted([&] { requests = workload::recorded_requests(text, "r.csv"); })) {
    return 0;
  }
  check(requests);
  if (fuzz::accepted([&] { workload::rescale(requests, 3.0); })) {
    check(requests);
    const double rate_rps = workload::mean_rate_rps(requests);
    fuzz::require(std::abs(rate_rps / 3.0 - 1.0) < 1e-9, "requests don't have the rate asked for");
  }
  return 0;
}
