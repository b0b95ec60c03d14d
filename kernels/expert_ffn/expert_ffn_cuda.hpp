#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bfloat16.hpp"
#include "expert_ffn/expert_ffn.hpp"
#include "system/cuda.hpp"

/// The experts' work on a GPU. Part of builds with CUDA.
namespace moevar::expert_ffn {

/// Brings an expert's matrices into a slot, the form in which DeviceExperts reads them: W1's and
/// W3's rows interleaved, so that a tile of their product holds both factors of an activation, then
/// W2; with fp8 quantised, each matrix by its largest value, and the factors behind them. `plain`
/// are W1 [intermediate, hidden], W3 the same, W2 [hidden, intermediate], one behind the other, in
/// the GPU's memory as `slot` is, which has slot_bytes() and is aligned to 256 bytes. Equal input
/// makes equal bytes. Throws InputError unless both sizes are multiples of 16.
void to_slot(const Shape& shape, Precision precision, const BFloat16* plain, void* slot,
             const cuda::Stream& stream);

/// The next `rows` rows of the input, which all go through the expert in `slot`; 0 rows are fine,
/// and their slot is not read.
struct DeviceGroup {
  const void* slot = nullptr;
  std::size_t rows = 0;
};

/// How the matrix products are made: by cuBLASLt expert by expert, by CUTLASS's grouped GEMM, or by
/// what was faster when tune() timed both.
enum class Method { automatic, cublaslt, cutlass };

/// Whether this program was built with CUTLASS; it needs compute capability 9.0.
bool built_with_cutlass() noexcept;

struct DeviceOptions {
  std::size_t most_groups = 0;  ///< of a run
  std::size_t most_rows = 0;    ///< of all groups of a run
  Method method = Method::automatic;
  int sm_limit = 0;  ///< streaming multiprocessors that the stream has, 0: all of the GPU's
};

/// What works on the experts' rows on one GPU, one run after the other. Owns all scratch memory.
class DeviceExperts {
 public:
  /// For the current GPU. Throws InputError unless both sizes are multiples of 16, EnvironmentError
  /// where memory does not suffice or the method cannot be had here.
  DeviceExperts(const Shape& shape, Precision precision, const DeviceOptions& options);
  ~DeviceExperts();
  DeviceExperts(DeviceExperts&&) noexcept;
  DeviceExperts& operator=(DeviceExperts&&) noexcept;
  DeviceExperts(const DeviceExperts&) = delete;
  DeviceExperts& operator=(const DeviceExperts&) = delete;

  /// Queues y = (silu(x W1^T) * (x W3^T)) W2^T for every row. `x` and `y` are [rows of all groups,
  /// hidden] in the GPU's memory, aligned to 16 bytes, and do not overlap. Neither allocates nor
  /// waits for the GPU; can be captured in a graph once as many rows a group have been run before.
  /// Runs of one object must not overlap in time. Throws InputError for more groups or rows than
  /// the object was made for.
  void run(std::span<const DeviceGroup> groups, const BFloat16* x, BFloat16* y,
           const cuda::Stream& stream);

  /// Times every way that `method` allows on the experts in `slots` (filled; most_groups at most),
  /// for `rows` rows each, and remembers the fastest for runs with about as many rows a group.
  /// Row counts whose sum goes beyond most_rows are passed over. Waits for the GPU; allocates
  /// input and output for the time being. Without it a rule of thumb decides.
  void tune(std::span<const void* const> slots, std::span<const std::size_t> rows,
            const cuda::Stream& stream);

  /// By name, the ways to make the first product with the activations, and the second.
  struct Ways {
    std::vector<std::string> first;
    std::vector<std::string> second;
  };
  [[nodiscard]] Ways ways() const;
  /// From now on runs take these of ways(), whatever was tuned: for tests and measurements. Throws
  /// InputError where there are not as many.
  void force(std::size_t first, std::size_t second);
  /// What a run with `rows` rows a group takes: "cutlass 128x256 fused by columns, then cublaslt".
  [[nodiscard]] std::string chosen(std::size_t rows) const;

  [[nodiscard]] std::size_t scratch_bytes() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moevar::expert_ffn
