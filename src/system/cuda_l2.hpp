#pragma once

#include <cstddef>

#include "system/cuda.hpp"

namespace moevar::cuda {

/// Empties a GPU's L2 cache of what a measurement is to read from memory. Belongs to the GPU that
/// was current when it was made.
class L2Flush {
 public:
  /// Allocates twice the L2's size, so that whatever replaces lines at random leaves few behind.
  L2Flush();
  /// Queues a write of the whole buffer, some 40 µs on an H100. Capturable.
  void operator()(const Stream& stream) const;
  [[nodiscard]] std::size_t bytes() const noexcept { return buffer_.bytes(); }

 private:
  DeviceArray<std::byte> buffer_;
};

}  // namespace moevar::cuda
