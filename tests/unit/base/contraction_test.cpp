#include <gtest/gtest.h>

namespace moevar {
namespace {

#if defined(__x86_64__)
#define MOEVAR_WITH_FMA __attribute__((target("fma"), noinline))
bool has_fma() { return __builtin_cpu_supports("fma") != 0; }
#else
#define MOEVAR_WITH_FMA __attribute__((noinline))
bool has_fma() { return true; }
#endif

MOEVAR_WITH_FMA double product_and_sum(double a, double b, double c) { return a * b + c; }

TEST(Contraction, AProductIsRoundedBeforeTheSum) {
  if (!has_fma()) {
    GTEST_SKIP() << "this processor has no fused multiply-add";
  }
  constexpr double kEps = 0x1p-30;
  // (1 + ε)² = 1 + 2ε + ε², of which a product of doubles keeps 1 + 2ε
  EXPECT_EQ(product_and_sum(1.0 + kEps, 1.0 + kEps, -1.0 - 2.0 * kEps), 0.0);
}

}  // namespace
}  // namespace moevar
