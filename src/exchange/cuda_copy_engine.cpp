#include "exchange/cuda_copy_engine.hpp"

namespace moevar::exchange {

namespace {

bool is_over(cudaError_t code, const char* call) {
  if (code == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  cuda::check(code, call);
  return true;
}

}  // namespace

std::shared_ptr<std::byte> CudaCopyEngine::host_memory(std::size_t bytes) {
  auto memory = std::make_shared<cuda::PinnedArray<std::byte>>(bytes);
  return {memory, memory->data()};
}

void CudaCopyEngine::copy(void* to, const void* from, std::size_t bytes,
                          const cuda::Stream& stream) {
  cuda::copy_bytes(to, from, bytes, stream);
}

void CudaCopyEngine::make_points(std::size_t count) { points_ = std::vector<cuda::Event>(count); }

void CudaCopyEngine::mark(std::size_t point, const cuda::Stream& stream) {
  points_[point].record(stream);
}

void CudaCopyEngine::hold(std::size_t point, const cuda::Stream& stream) {
  points_[point].hold(stream);
}

bool CudaCopyEngine::reached(std::size_t point) {
  return is_over(cudaEventQuery(points_[point].raw()), "cudaEventQuery");
}

bool CudaCopyEngine::done(const cuda::Stream& stream) {
  return is_over(cudaStreamQuery(stream.raw()), "cudaStreamQuery");
}

}  // namespace moevar::exchange
