#include <cmath>

#include "fuzz.hpp"
#include "placement/speeds_file.hpp"

/// Speeds of devices, as CSV.
namespace {

using namespace moevar;

void check_curve(const placement::SpeedCurve& curve) {
  double before = 0.0;
  for (const double tokens : curve.grid()) {
    for (const double n : {tokens, tokens * 1.5}) {
      const double time = curve.time_us(n);
      fuzz::require(!std::isnan(time) && !std::isnan(curve.tokens_within(time)),
                    "a speed curve is not a number");
    }
    fuzz::require(curve.time_us(tokens) >= before * (1.0 - 1e-9), "a speed curve falls");
    before = curve.time_us(tokens);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto input = fuzz::split({data, size});
  const int devices = input.pick(8) + 1;
  placement::SpeedModels speeds;
  if (!fuzz::accepted(
          [&] { speeds = placement::parse_speeds_csv(input.text, "s.csv", devices); })) {
    return 0;
  }
  fuzz::require(static_cast<int>(speeds.size()) == devices, "speeds of another number of devices");
  std::ranges::for_each(speeds, check_curve);
  return 0;
}
