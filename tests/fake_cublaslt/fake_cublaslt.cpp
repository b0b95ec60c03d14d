#include <cmath>
#include <cstdint>
#include <cstring>
#include <cublasLt.h>
#include <map>

#include "base/bfloat16.hpp"

/// The part of cuBLASLt that moevar calls, as its documentation has it, on matrices in the host's
/// memory: column by column, plain loops, bf16 and e4m3 and float. What the documentation forbids
/// gets the status that it names.
namespace {

using moevar::BFloat16;

struct Layout {
  cudaDataType type;
  std::uint64_t rows;
  std::uint64_t columns;
  std::int64_t stride;
};

struct Product {
  std::map<int, std::int64_t> attributes;
  [[nodiscard]] std::int64_t get(int attribute) const {
    const auto found = attributes.find(attribute);
    return found == attributes.end() ? 0 : found->second;
  }
  [[nodiscard]] const float* scales(int attribute) const {
    return reinterpret_cast<const float*>(get(attribute));
  }
};

constexpr int kAScaleMode = 31;
constexpr int kBScaleMode = 32;
constexpr int kOuterVector = 3;

float of_e4m3(std::uint8_t bits) {
  const int exponent = bits >> 3U & 15U;
  const auto fraction = static_cast<float>(bits & 7U) / 8.0F;
  const float size =
      exponent == 0 ? std::ldexp(fraction, -6) : std::ldexp(1 + fraction, exponent - 7);
  return (bits & 0x80U) != 0 ? -size : size;
}

/// Element (row, column) of a matrix, or of its transpose.
double element(const void* matrix, const Layout& layout, bool transposed, std::uint64_t row,
               std::uint64_t column) {
  const std::uint64_t at = transposed ? column + row * static_cast<std::uint64_t>(layout.stride)
                                      : row + column * static_cast<std::uint64_t>(layout.stride);
  switch (layout.type) {
    case CUDA_R_16BF:
      return static_cast<double>(static_cast<const BFloat16*>(matrix)[at].value());
    case CUDA_R_8F_E4M3:
      return static_cast<double>(of_e4m3(static_cast<const std::uint8_t*>(matrix)[at]));
    default:
      return static_cast<double>(static_cast<const float*>(matrix)[at]);
  }
}

void store(void* matrix, const Layout& layout, std::uint64_t row, std::uint64_t column,
           double value) {
  const std::uint64_t at = row + column * static_cast<std::uint64_t>(layout.stride);
  if (layout.type == CUDA_R_16BF) {
    static_cast<BFloat16*>(matrix)[at] = BFloat16::from(static_cast<float>(value));
  } else {
    static_cast<float*>(matrix)[at] = static_cast<float>(value);
  }
}

const Layout& of(cublasLtMatrixLayout_t layout) { return *reinterpret_cast<Layout*>(layout); }
const Product& of(cublasLtMatmulDesc_t product) { return *reinterpret_cast<Product*>(product); }

/// Whether the sizes agree and the types may be multiplied.
bool fits(const Product& product, const Layout& a, const Layout& b, const Layout& d) {
  const bool first = product.get(CUBLASLT_MATMUL_DESC_TRANSA) == CUBLAS_OP_T;
  const bool second = product.get(CUBLASLT_MATMUL_DESC_TRANSB) == CUBLAS_OP_T;
  const auto m = first ? a.columns : a.rows;
  const auto k = first ? a.rows : a.columns;
  const bool sizes = (second ? b.columns : b.rows) == k && d.rows == m &&
                     (second ? b.rows : b.columns) == d.columns && a.type == b.type;
  if (a.type != CUDA_R_8F_E4M3) {
    return sizes && product.get(kAScaleMode) == 0 && product.get(kBScaleMode) == 0;
  }
  // "A must be transposed and B non-transposed", sizes by 16
  return sizes && first && !second && m % 16 == 0 && k % 16 == 0 &&
         product.get(kAScaleMode) == product.get(kBScaleMode);
}

}  // namespace

#define MOEVAR_FAKE extern "C" __attribute__((visibility("default")))

MOEVAR_FAKE cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE size_t cublasLtGetVersion() { return 130099; }
MOEVAR_FAKE const char* cublasLtGetStatusName(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS";
}
MOEVAR_FAKE cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* product,
                                                    cublasComputeType_t compute,
                                                    cudaDataType_t scale) {
  *product = reinterpret_cast<cublasLtMatmulDesc_t>(new Product{});
  return compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS
                                                              : CUBLAS_STATUS_NOT_SUPPORTED;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  delete reinterpret_cast<Product*>(product);
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                                          cublasLtMatmulDescAttributes_t which,
                                                          const void* value, size_t bytes) {
  std::int64_t number = 0;
  std::memcpy(&number, value, bytes);
  reinterpret_cast<Product*>(product)->attributes[which] = number;
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout,
                                                      cudaDataType type, uint64_t rows,
                                                      uint64_t columns, int64_t stride) {
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, stride});
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                            cublasLtMatrixLayoutAttribute_t which,
                                                            const void* value, size_t bytes) {
  if (which != CUBLASLT_MATRIX_LAYOUT_COLS || bytes != sizeof(std::uint64_t)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  std::memcpy(&reinterpret_cast<Layout*>(layout)->columns, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<int*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t /*preference*/, cublasLtMatmulPreferenceAttributes_t /*which*/,
    const void* /*value*/, size_t /*bytes*/) {
  return CUBLAS_STATUS_SUCCESS;
}
/// Two algorithms, of which the second is not to be had.
MOEVAR_FAKE cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t /*c*/, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t /*preference*/, int most, cublasLtMatmulHeuristicResult_t* results,
    int* count) {
  if (!fits(of(product), of(a), of(b), of(d))) {
    *count = 0;
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *count = most > 1 ? 2 : 1;
  for (int i = 0; i < *count; ++i) {
    results[i] = {};
    results[i].state = i == 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}
MOEVAR_FAKE cublasStatus_t cublasLtMatmul(
    cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
    cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
    const void* beta, const void* /*c*/, cublasLtMatrixLayout_t /*c_layout*/, void* d,
    cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* /*workspace*/,
    size_t /*workspace_bytes*/, cudaStream_t /*stream*/) {
  const Product& product = of(desc);
  if (!fits(product, of(a_layout), of(b_layout), of(d_layout)) || algorithm == nullptr ||
      *static_cast<const float*>(beta) != 0.0F) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const bool first = product.get(CUBLASLT_MATMUL_DESC_TRANSA) == CUBLAS_OP_T;
  const bool second = product.get(CUBLASLT_MATMUL_DESC_TRANSB) == CUBLAS_OP_T;
  const auto depth = first ? of(a_layout).rows : of(a_layout).columns;
  const bool scaled = product.get(kAScaleMode) == kOuterVector;
  const float* const a_scales = product.scales(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER);
  const float* const b_scales = product.scales(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER);
  for (std::uint64_t row = 0; row < of(d_layout).rows; ++row) {
    for (std::uint64_t column = 0; column < of(d_layout).columns; ++column) {
      double sum = 0.0;
      for (std::uint64_t i = 0; i < depth; ++i) {
        sum +=
            element(a, of(a_layout), first, row, i) * element(b, of(b_layout), second, i, column);
      }
      sum *= static_cast<double>(*static_cast<const float*>(alpha));
      if (scaled) {
        sum *= static_cast<double>(a_scales[row]) * static_cast<double>(b_scales[column]);
      }
      store(d, of(d_layout), row, column, sum);
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}
