#pragma once

#include <vector>

#include "exchange/copy_engine.hpp"
#include "system/cuda.hpp"

namespace moevar::exchange {

/// Through CUDA, for all lanes of the current GPU; host memory is pinned. Part of builds with CUDA.
class CudaCopyEngine final : public CopyEngine {
 public:
  std::shared_ptr<std::byte> host_memory(std::size_t bytes) override;
  void copy(void* to, const void* from, std::size_t bytes, const cuda::Stream& stream) override;
  void make_points(std::size_t count) override;
  void mark(std::size_t point, const cuda::Stream& stream) override;
  void hold(std::size_t point, const cuda::Stream& stream) override;
  bool reached(std::size_t point) override;
  bool done(const cuda::Stream& stream) override;

 private:
  std::vector<cuda::Event> points_;
};

}  // namespace moevar::exchange
