#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace moevar {

/// SplitMix64's output function: a bijection of 64-bit words.
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31U);
}

namespace detail {

/// Horner's rule, highest power last in the array.
template <std::size_t N>
constexpr double polynomial(const std::array<double, N>& coefficients, double x) noexcept {
  double sum = coefficients[N - 1];
  for (std::size_t i = N - 1; i-- > 0;) {
    sum = sum * x + coefficients[i];
  }
  return sum;
}

/// AS 241's three rational approximations: the centre, the tails, the far tails.
inline constexpr std::array<double, 8> kCentreNumerator{
    3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3,
    1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
    3.3430575583588128105e+4, 2.5090809287301226727e+3};
inline constexpr std::array<double, 8> kCentreDenominator{1.0,
                                                          4.2313330701600911252e+1,
                                                          6.8718700749205790830e+2,
                                                          5.3941960214247511077e+3,
                                                          2.1213794301586595867e+4,
                                                          3.9307895800092710610e+4,
                                                          2.8729085735721942674e+4,
                                                          5.2264952788528545610e+3};
inline constexpr std::array<double, 8> kTailNumerator{
    1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
    3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
    2.27238449892691845833e-2, 7.74545014278341407640e-4};
inline constexpr std::array<double, 8> kTailDenominator{1.0,
                                                        2.05319162663775882187e0,
                                                        1.67638483018380384940e0,
                                                        6.89767334985100004550e-1,
                                                        1.48103976427480074590e-1,
                                                        1.51986665636164571966e-2,
                                                        5.47593808499534494600e-4,
                                                        1.05075007164441684324e-9};
inline constexpr std::array<double, 8> kFarNumerator{
    6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
    2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
    2.71155556874348757815e-5, 2.01033439929228813265e-7};
inline constexpr std::array<double, 8> kFarDenominator{1.0,
                                                       5.99832206555887937690e-1,
                                                       1.36929880922735805310e-1,
                                                       1.48753612908506148525e-2,
                                                       7.86869131145613259100e-4,
                                                       1.84631831751005468180e-5,
                                                       1.42151175831644588870e-7,
                                                       2.04426310338993978564e-15};

}  // namespace detail

/// Phi^-1(u) for 0 < u < 1, relative error below 1e-15.
/// Source: Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37(3), 1988.
inline double normal_quantile(double u) noexcept {
  const double q = u - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * detail::polynomial(detail::kCentreNumerator, r) /
           detail::polynomial(detail::kCentreDenominator, r);
  }
  const double r = std::sqrt(-std::log(q < 0 ? u : 1.0 - u));
  const double z = r <= 5.0 ? detail::polynomial(detail::kTailNumerator, r - 1.6) /
                                  detail::polynomial(detail::kTailDenominator, r - 1.6)
                            : detail::polynomial(detail::kFarNumerator, r - 5.0) /
                                  detail::polynomial(detail::kFarDenominator, r - 5.0);
  return q < 0 ? -z : z;
}

/// A counter-based random number: a value is a function of what it is for and of nothing else.
///
///     RandomKey(seed)[step][layer][expert].normal()
///
/// Every [] is one more level of the key: the state is mix(state ^ id), so that draws never depend
/// on the order of calls, the size of a fleet or the number of ranks.
class RandomKey {
 public:
  constexpr explicit RandomKey(std::uint64_t seed) noexcept : state_(mix(seed)) {}

  constexpr RandomKey operator[](std::uint64_t id) const noexcept {
    RandomKey next(0);
    next.state_ = mix(state_ ^ id);
    return next;
  }

  [[nodiscard]] constexpr std::uint64_t bits() const noexcept { return state_; }

  /// In the open interval (0, 1), on the grid (k + 0.5) 2^-53; the last point, which a double would
  /// round to 1, is the largest double below it.
  [[nodiscard]] constexpr double uniform() const noexcept {
    const double u = (static_cast<double>(state_ >> 11U) + 0.5) * 0x1p-53;
    return u < 1.0 ? u : 0x1.fffffffffffffp-1;
  }

  /// Uniform on {0, ..., n-1}; n > 0.
  [[nodiscard]] constexpr std::uint64_t below(std::uint64_t n) const noexcept {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(state_) * n) >> 64U);
  }

  /// Standard normal.
  [[nodiscard]] double normal() const noexcept { return normal_quantile(uniform()); }

 private:
  std::uint64_t state_;
};

/// The first level of every key, below the seed: what a random number is for. One list, so that no
/// two uses share a stream. GPU draws (fleet/) use [index][parameter] directly, as reference fleets
/// do.
enum class Stream : std::uint64_t {
  plan_order = 0x706C616E,
  skew = 0x736B6577,
  expert_order = 0x65787074,
  burst = 0x62757273,
  drift = 0x64726966,
  load = 0x6C6F6164,
  token = 0x746F6B65,
  placement = 0x706C6163,
  restart = 0x72657374,
  weights = 0x77676874,
  activations = 0x61637476,
  fleet_draw = 0x64726177,
  requests = 0x72657173,
  request_kind = 0x6B696E64,
  request_arrival = 0x61727269,
  request_length = 0x6C656E67,
  step_excess = 0x65786365,
};

/// RandomKey(seed) narrowed to one use.
constexpr RandomKey random_stream(std::uint64_t seed, Stream stream) noexcept {
  return RandomKey(seed)[static_cast<std::uint64_t>(stream)];
}

}  // namespace moevar
