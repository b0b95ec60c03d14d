#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/random.hpp"
#include "base/tensor.hpp"
#include "placement/placement.hpp"

namespace moevar::placement {

using Slots = std::vector<std::int32_t>;

inline SpeedCurve proportional(double us_per_token) { return SpeedCurve({1.0}, {us_per_token}); }

inline SpeedModels equal_speeds(int devices) {
  return SpeedModels(static_cast<std::size_t>(devices), proportional(1.0));
}

inline Matrix<double> random_loads(std::size_t layers, std::size_t experts, std::uint64_t seed) {
  Matrix<double> loads({layers, experts});
  for (std::size_t i = 0; i < loads.size(); ++i) {
    loads.flat()[i] = std::exp(2.0 * RandomKey(seed)[i].normal()) * 100.0;
  }
  return loads;
}

inline Slots row(const Placement& p, int layer) {
  const auto slots = p.expert_of_slot.row(layer);
  return {slots.begin(), slots.end()};
}

/// [1][experts] of given values.
inline Matrix<double> one_layer(const std::vector<double>& values) {
  Matrix<double> loads({1, values.size()});
  for (std::size_t e = 0; e < values.size(); ++e) {
    loads(0, e) = values[e];
  }
  return loads;
}

/// [steps][1][experts] of given values, and their mean.
struct Trace {
  explicit Trace(const std::vector<std::vector<double>>& values)
      : steps({values.size(), 1, values[0].size()}), mean({1, values[0].size()}, 0.0) {
    for (std::size_t t = 0; t < values.size(); ++t) {
      for (std::size_t e = 0; e < values[t].size(); ++e) {
        steps(t, 0, e) = values[t][e];
        mean(0, e) += values[t][e] / static_cast<double>(values.size());
      }
    }
  }
  Tensor<double, 3> steps;
  Matrix<double> mean;
};

inline int device_of(const Placement& p, int layer, std::int32_t expert) {
  for (int slot = 0; slot < p.slots(); ++slot) {
    if (p.expert_of_slot(layer, slot) == expert) {
      return slot / p.slots_per_device;
    }
  }
  return -1;
}

}  // namespace moevar::placement
