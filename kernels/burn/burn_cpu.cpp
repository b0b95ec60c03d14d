#include <chrono>
#include <vector>

#include <cblas.h>

#include "base/random.hpp"
#include "burn/burn.hpp"

namespace moevar::burn {

namespace {

// zeros would toggle no bits, and leave a GPU 15 % cooler than random data does
std::vector<float> random_matrix(std::uint64_t key, int size) {
  std::vector<float> matrix(static_cast<std::size_t>(size) * static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < matrix.size(); ++i) {
    matrix[i] = static_cast<float>(RandomKey(key)[i].normal());
  }
  return matrix;
}

}  // namespace

std::int64_t burn_cpu(double seconds, int size) {
  openblas_set_num_threads(1);  // one device is one core
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(seconds));
  // made once: a burst of a few milliseconds is to burn, not to draw random numbers
  thread_local std::vector<float> a;
  thread_local std::vector<float> b;
  thread_local std::vector<float> c;
  if (const auto elements = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
      a.size() != elements) {
    a = random_matrix(1, size);
    b = random_matrix(2, size);
    c.resize(elements);
  }
  std::int64_t flops = 0;
  do {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, size, size, size, 1.0F, a.data(), size,
                b.data(), size, 0.0F, c.data(), size);
    flops += std::int64_t{2} * size * size * size;
  } while (Clock::now() < end);
  return flops;
}

}  // namespace moevar::burn
