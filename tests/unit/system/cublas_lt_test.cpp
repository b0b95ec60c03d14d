#include "system/cublas_lt.hpp"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/bfloat16.hpp"

/// The wrapper's row-major products, through a stand-in for the library that multiplies the host's
/// matrices as cuBLASLt's documentation says.
namespace moevar::cublas_lt {
namespace {

float number(std::size_t row, std::size_t column) {
  return static_cast<float>(static_cast<int>((row * 7 + column * 3) % 9) - 4);
}

std::vector<BFloat16> bf16(std::size_t rows, std::size_t columns) {
  std::vector<BFloat16> all;
  all.reserve(rows * columns);
  for (std::size_t i = 0; i < rows * columns; ++i) {
    all.push_back(BFloat16::from(number(i / columns, i % columns)));
  }
  return all;
}

double expected(const Product& product, std::size_t row, std::size_t column) {
  double sum = 0.0;
  for (std::size_t i = 0; i < product.depth; ++i) {
    const float b = product.b_by_depth ? number(i, column) : number(column, i);
    sum += static_cast<double>(number(row, i)) * static_cast<double>(b);
  }
  return sum;
}

class CublasLt : public testing::Test {
 protected:
  Handle handle{0};
  const cuda::Stream stream{nullptr};
};

TEST_F(CublasLt, MultipliesByRows) {
  for (const bool b_by_depth : {false, true}) {
    const Product product{5, 7, 3, Type::bf16, Type::f32, b_by_depth};
    Gemm gemm(handle, product);
    const auto a = bf16(5, 3);
    const auto b = b_by_depth ? bf16(3, 7) : bf16(7, 3);
    std::vector<float> out(5 * 7, std::nanf(""));
    gemm.run({a.data(), b.data(), out.data()}, stream);
    for (std::size_t i = 0; i < out.size(); ++i) {
      EXPECT_EQ(static_cast<double>(out[i]), expected(product, i / 7, i % 7)) << i;
    }
  }
}

TEST_F(CublasLt, TakesOtherRowsLater) {
  Product product{4, 6, 8};
  Gemm gemm(handle, product);
  product.rows = 9;
  gemm.set_rows(9);
  EXPECT_EQ(gemm.product().rows, 9U);
  const auto a = bf16(9, 8);
  const auto b = bf16(6, 8);
  std::vector<BFloat16> out(10 * 6, BFloat16::from(-1000.0F));
  gemm.run({a.data(), b.data(), out.data()}, stream);
  for (std::size_t i = 0; i < 9U * 6; ++i) {
    EXPECT_EQ(out[i], BFloat16::from(static_cast<float>(expected(product, i / 6, i % 6)))) << i;
  }
  EXPECT_EQ(out[9U * 6], BFloat16::from(-1000.0F)) << "written beyond the rows";
}

TEST_F(CublasLt, ScalesRowsOfBothOperands) {
  const Product product{3, 16, 32, Type::e4m3, Type::f32, false, Scales::rows};
  Gemm gemm(handle, product);
  constexpr std::uint8_t kOne = 0x38;  // e4m3: exponent 7, fraction 0
  const std::vector<std::uint8_t> a(3U * 32, kOne);
  const std::vector<std::uint8_t> b(16U * 32, kOne);
  const std::vector<float> a_scales{1.0F, 10.0F, 100.0F};
  std::vector<float> b_scales(16);
  for (std::size_t i = 0; i < b_scales.size(); ++i) {
    b_scales[i] = static_cast<float>(i + 1);
  }
  std::vector<float> out(3U * 16);
  gemm.run({a.data(), b.data(), out.data(), a_scales.data(), b_scales.data()}, stream);
  for (std::size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(out[i], 32.0F * a_scales[i / 16] * b_scales[i % 16]) << i;
  }
}

TEST_F(CublasLt, OffersOnlyAlgorithmsThatAreToBeHad) {
  Gemm gemm(handle, {4, 16, 16}, 8);
  EXPECT_EQ(gemm.algorithms(), 1U);
  EXPECT_THROW(gemm.choose(1), InputError);
  EXPECT_EQ(version(), 130099U);
}

TEST_F(CublasLt, SaysForWhichProductThereIsNoAlgorithm) {
  try {
    const Gemm gemm(handle, {4, 16, 24, Type::e4m3});
    FAIL() << "e4m3 of depth 24";
  } catch (const EnvironmentError& error) {
    EXPECT_NE(std::string_view(error.what()).find("4 x 16 x 24"), std::string_view::npos)
        << error.what();
  }
}

/// CTest starts this alone, with MOEVAR_CUBLASLT naming what is not there.
TEST(CublasLtMissing, IsAnErrorOnceItIsNeeded) {
  const char* const file = std::getenv("MOEVAR_CUBLASLT");
  if (file == nullptr || std::string_view(file) != "/nonexistent/libcublasLt.so") {
    GTEST_SKIP() << "MOEVAR_CUBLASLT names a library";
  }
  EXPECT_FALSE(available());
  try {
    const Handle handle(0);
    FAIL() << "a handle of nothing";
  } catch (const EnvironmentError& error) {
    const std::string_view what = error.what();
    EXPECT_NE(what.find("MOEVAR_CUBLASLT"), std::string_view::npos) << what;
    EXPECT_NE(what.find(file), std::string_view::npos) << what;
  }
}

}  // namespace
}  // namespace moevar::cublas_lt
