#include "workload/loads.hpp"

namespace moevar::workload {

Matrix<double> mean_loads(const Loads& loads) {
  const std::size_t steps = loads.extent(0);
  Matrix<double> mean({loads.extent(1), loads.extent(2)});
  for (std::size_t step = 0; step < steps; ++step) {
    const auto counts = loads.row(step);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      mean.flat()[i] += counts[i];
    }
  }
  for (double& value : mean.flat()) {
    value /= static_cast<double>(steps);
  }
  return mean;
}

}  // namespace moevar::workload
