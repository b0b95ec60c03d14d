#pragma once

#include <cstddef>
#include <span>
#include <vector>

/// The work of a device's experts in one MoE layer: gated feed-forward networks (SwiGLU) on rows
/// that are grouped by expert. All arrays are row-major.
namespace moevar::expert_ffn {

/// Sizes of one expert.
struct Shape {
  std::size_t hidden = 0;
  std::size_t intermediate = 0;
};

/// One expert's matrices.
struct Weights {
  std::span<const float> w1;  ///< gate projection, [intermediate, hidden]
  std::span<const float> w3;  ///< up projection, [intermediate, hidden]
  std::span<const float> w2;  ///< down projection, [hidden, intermediate]
};

/// The next `rows` rows of the input, which all go through one expert; 0 rows are fine.
struct Group {
  Weights weights;
  std::size_t rows = 0;
};

/// Floating-point operations of the three matrix products, 2 for a multiply-add. The element-wise
/// activation is not counted.
constexpr double flops(const Shape& shape, std::size_t rows) noexcept {
  return 6.0 * static_cast<double>(rows) * static_cast<double>(shape.hidden) *
         static_cast<double>(shape.intermediate);
}

/// Bytes that have to cross the memory bus at least once: the weights of every expert that has
/// rows, the input and the output.
double bytes(const Shape& shape, std::span<const Group> groups) noexcept;

/// What the weights and the products' operands are on a GPU; sums are single precision in both.
enum class Precision {
  bf16,
  fp8  ///< e4m3 with a factor for each weight matrix and one for each row of the activations
};

/// Bytes of one expert on a GPU: its three matrices, and with fp8 their three factors.
std::size_t slot_bytes(const Shape& shape, Precision precision) noexcept;

/// bytes() on a GPU, for `rows` of every expert: the weights of those that have rows in
/// `precision`, the input and the output in bfloat16.
double device_bytes(const Shape& shape, Precision precision,
                    std::span<const std::size_t> rows) noexcept;

/// Scratch memory of run_cpu, so that it allocates nothing. Groups of more than `block_rows` rows
/// are done in blocks of that many.
class Workspace {
 public:
  explicit Workspace(const Shape& shape, std::size_t block_rows = 512);

  [[nodiscard]] std::size_t block_rows() const noexcept { return block_rows_; }
  [[nodiscard]] std::span<float> gate() noexcept { return gate_; }
  [[nodiscard]] std::span<float> up() noexcept { return up_; }

 private:
  std::size_t block_rows_;
  std::vector<float> gate_;  ///< [block_rows, intermediate]
  std::vector<float> up_;    ///< [block_rows, intermediate]
};

/// y = (silu(x W1^T) * (x W3^T)) W2^T for every row with the weights of its group, with
/// silu(v) = v / (1 + e^-v). `x` and `y` are [rows of all groups, hidden] and do not overlap. One
/// thread. `workspace` was made for the same shape.
void run_cpu(const Shape& shape, std::span<const Group> groups, std::span<const float> x,
             std::span<float> y, Workspace& workspace);

/// The same in double precision and plain loops: what every other version is compared with.
void run_reference(const Shape& shape, std::span<const Group> groups, std::span<const float> x,
                   std::span<double> y);

}  // namespace moevar::expert_ffn
