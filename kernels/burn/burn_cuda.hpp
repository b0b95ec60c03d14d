#pragma once

#include <cstdint>
#include <memory>

/// burn.hpp on a GPU: dense bf16 products of random normal matrices through cuBLASLt hold it at its
/// power limit. Part of builds with CUDA.
namespace moevar::burn {

/// One GPU's burner: the GPU that was current when it was made. Work comes in bursts of about 20
/// ms × duty from a thread of its own, which sleeps while the GPU works.
class Burner {
 public:
  /// Matrices of `size` × `size`; halved, not below 1024, until its three matrices and the
  /// library's memory take less than half of what is free. Throws EnvironmentError without cuBLASLt
  /// or memory.
  explicit Burner(int size = 8192);
  /// Stops.
  ~Burner();
  Burner(const Burner&) = delete;
  Burner& operator=(const Burner&) = delete;

  [[nodiscard]] int size() const noexcept;

  /// Begins to burn and returns at once: the GPU works for the share `duty`, in (0, 1], of the
  /// time. Throws InputError for another duty, or where it burns already.
  void start(double duty = 1.0);
  /// Ends it, when the burst under way is over (20 to 40 ms): floating-point operations done since
  /// start(), 2 × size³ a product. 0 where it does not burn. Throws what went wrong meanwhile.
  double stop();
  /// start, sleep, stop.
  double run(double seconds, double duty = 1.0);

 private:
  class Work;
  std::unique_ptr<Work> work_;
};

}  // namespace moevar::burn
