#include <cmath>

#include "expert_ffn/expert_ffn.hpp"

namespace moevar::expert_ffn {

namespace {

/// Sum over i of a[i] b[i].
template <class T>
double dot(std::span<const float> a, std::span<const T> b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return sum;
}

}  // namespace

void run_reference(const Shape& shape, std::span<const Group> groups, std::span<const float> x,
                   std::span<double> y) {
  std::vector<double> middle(shape.intermediate);
  std::size_t row = 0;
  for (const Group& group : groups) {
    for (std::size_t end = row + group.rows; row < end; ++row) {
      const auto in = x.subspan(row * shape.hidden, shape.hidden);
      for (std::size_t i = 0; i < shape.intermediate; ++i) {
        const double gate = dot(group.weights.w1.subspan(i * shape.hidden, shape.hidden), in);
        const double up = dot(group.weights.w3.subspan(i * shape.hidden, shape.hidden), in);
        middle[i] = gate / (1.0 + std::exp(-gate)) * up;
      }
      for (std::size_t h = 0; h < shape.hidden; ++h) {
        y[row * shape.hidden + h] =
            dot(group.weights.w2.subspan(h * shape.intermediate, shape.intermediate),
                std::span<const double>(middle));
      }
    }
  }
}

}  // namespace moevar::expert_ffn
