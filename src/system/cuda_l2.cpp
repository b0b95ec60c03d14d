#include "system/cuda_l2.hpp"

namespace moevar::cuda {

L2Flush::L2Flush() : buffer_(2 * l2_bytes()) {}

void L2Flush::operator()(const Stream& stream) const {
  MOEVAR_CUDA(cudaMemsetAsync(buffer_.data(), 0x5A, buffer_.bytes(), stream.raw()));
}

}  // namespace moevar::cuda
