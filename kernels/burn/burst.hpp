#pragma once

#include <cmath>
#include <cstdint>

#include "base/host_device.hpp"

/// The arithmetic behind burn_cuda.hpp, without a GPU.
namespace moevar::burn {

/// Of a burst of work and the rest after it.
inline constexpr double kPeriodSeconds = 0.02;

/// Products in a burst that fills the share `duty` of a period: at least one.
inline int products_per_burst(double product_seconds, double duty) noexcept {
  const double products = duty * kPeriodSeconds / product_seconds;
  return products < 1.5 ? 1 : static_cast<int>(std::lround(std::fmin(products, 1e6)));
}

/// From the beginning of a burst to that of the next, after one that kept the GPU busy so long.
constexpr double period_after(double busy_seconds, double duty) noexcept {
  return busy_seconds / duty;
}

/// The largest of size, size/2, ... whose three bf16 matrices take at most `bytes`; not below
/// 1024, however little there is.
constexpr int size_that_fits(int size, std::uint64_t bytes) noexcept {
  constexpr int kLeast = 1024;
  while (size / 2 >= kLeast &&
         std::uint64_t{6} * static_cast<std::uint64_t>(size) * static_cast<std::uint64_t>(size) >
             bytes) {
    size /= 2;
  }
  return size;
}

/// A standard normal number from 64 random bits, by Box and Muller.
MOEVAR_HOST_DEVICE inline float normal_from(std::uint64_t bits) noexcept {
  constexpr float kTwoPi = 6.2831853F;
  const float radius_from = (static_cast<float>(bits >> 40U) + 0.5F) * 0x1p-24F;  // in (0, 1)
  const float turn = static_cast<float>(bits & 0xFFFFFFU) * 0x1p-24F;
  return sqrtf(-2.0F * logf(radius_from)) * cosf(kTwoPi * turn);
}

}  // namespace moevar::burn
