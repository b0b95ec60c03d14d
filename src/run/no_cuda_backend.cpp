#include "base/error.hpp"
#include "run/cuda_backend.hpp"

namespace moevar::run {

std::unique_ptr<Backend> make_cuda_backend(const mpi::Communicator& /*comm*/,
                                           const study::Study& /*study*/,
                                           const study::ModelShape& /*model*/,
                                           const study::PhaseSpec& /*phase*/,
                                           int /*tokens_per_device*/) {
  throw EnvironmentError("moevar was built without CUDA");
}

}  // namespace moevar::run
