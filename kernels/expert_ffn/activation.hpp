#pragma once

#include <cmath>
#include <cstdint>
#include <cuda_fp8.h>

#include "expert_ffn/slot_layout.hpp"

namespace moevar::expert_ffn {

constexpr float kMostE4m3 = 448.0F;  ///< largest number of the format

/// The nearest e4m3 of value * inverse_factor, at most 448.
MOEVAR_BOTH inline std::uint8_t e4m3_of(float value, float inverse_factor) {
  return __nv_cvt_float_to_fp8(value * inverse_factor, __NV_SATFINITE, __NV_E4M3);
}

/// 448 over the largest absolute value, 0 where that is 0.
MOEVAR_BOTH inline float inverse_factor_of(float largest) {
  return largest > 0.0F ? kMostE4m3 / largest : 0.0F;
}

/// silu(gate) * up with silu(v) = v / (1 + e^-v).
MOEVAR_BOTH inline float activation(float gate, float up) {
#if defined(__CUDA_ARCH__)
  // both of a few units in the last place, beyond what bf16 holds; 0 for gates far below 0
  return __fdividef(gate, 1.0F + __expf(-gate)) * up;
#else
  return gate / (1.0F + std::exp(-gate)) * up;
#endif
}

}  // namespace moevar::expert_ffn
