#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "system/cuda.hpp"

/// cuBLASLt, loaded when it is first asked for: libcublasLt.so.13 or .12, or the file that
/// MOEVAR_CUBLASLT names. Everything belongs to the GPU that was current when it was made. Part of
/// builds with CUDA.
namespace moevar::cublas_lt {

/// Whether the library can be loaded; why_unavailable() says in a line why not.
bool available() noexcept;
std::string why_unavailable();
/// As cuBLAS counts: 130100 is 13.1.0. Throws EnvironmentError where the library is not there.
std::size_t version();

/// A connection to the library with workspace for one product at a time: products of one handle run
/// on one stream, or one after the other. Throws EnvironmentError where the library is not there.
class Handle {
 public:
  /// What NVIDIA advises for Hopper's GPUs.
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20U;

  explicit Handle(std::size_t workspace_bytes = kWorkspaceBytes);
  ~Handle();
  Handle(Handle&&) noexcept;
  Handle& operator=(Handle&&) noexcept;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

 private:
  friend class Gemm;
  struct State;
  std::unique_ptr<State> state_;
};

enum class Type { bf16, e4m3, f32 };

/// Whether the factors of a and b, in float on the GPU, scale the product: one factor for a row of
/// a and one for a row of b, element (i, j) of out being a_scales[i] * b_scales[j] * (a b^T)[i, j].
/// For e4m3 alone; cuBLAS 12.9 or later on compute capability 9.0 or later.
enum class Scales { none, rows };

/// out[rows, columns] = a[rows, depth] b[columns, depth]^T, all row-major without gaps, summed in
/// float. e4m3 wants multiples of 16 for columns and depth.
struct Product {
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::size_t depth = 0;
  Type in = Type::bf16;     ///< of a and b
  Type out = Type::bf16;    ///< bf16 or f32
  bool b_by_depth = false;  ///< b is [depth, columns] instead; not for e4m3
  Scales scales = Scales::none;
};

/// Floating-point operations, 2 for a multiply-add.
constexpr double flops(const Product& product) noexcept {
  return 2.0 * static_cast<double>(product.rows) * static_cast<double>(product.columns) *
         static_cast<double>(product.depth);
}

/// What a Gemm reads and writes, in the GPU's memory: a, b and out aligned to 16 bytes.
struct Operands {
  const void* a = nullptr;
  const void* b = nullptr;
  void* out = nullptr;
  const float* a_scales = nullptr;  ///< [rows], where the product has scales
  const float* b_scales = nullptr;  ///< [columns]
};

/// One product, with the algorithms that the library's heuristics propose for it, best first. Made
/// on the host alone: nothing of it lies on the GPU. Must not outlive its handle.
class Gemm {
 public:
  /// `sm_limit`: the streaming multiprocessors to plan for, 0: all. Throws EnvironmentError where
  /// the library knows no algorithm for it.
  Gemm(Handle& handle, const Product& product, int most_algorithms = 1, int sm_limit = 0);
  ~Gemm();
  Gemm(Gemm&&) noexcept;
  Gemm& operator=(Gemm&&) noexcept;
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  [[nodiscard]] const Product& product() const noexcept;
  [[nodiscard]] std::size_t algorithms() const noexcept;
  /// The algorithm that run() takes from now on; the first at the start.
  void choose(std::size_t algorithm);
  [[nodiscard]] std::size_t chosen() const noexcept;

  /// From now on the product has so many rows; algorithms stay those proposed for the rows at the
  /// start, which suit any number near it.
  void set_rows(std::size_t rows);

  /// Queues the product. Allocates nothing and can be captured in a graph.
  void run(const Operands& operands, const cuda::Stream& stream);

  /// Runs every algorithm `repeats` times after a warm-up, chooses the fastest and returns its time
  /// in microseconds. Waits for the GPU; an algorithm that fails is passed over.
  float tune(const Operands& operands, const cuda::Stream& stream, int repeats = 5);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moevar::cublas_lt
