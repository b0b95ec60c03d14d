#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor.hpp"
#include "placement/speed_model.hpp"

namespace moevar::placement {

struct Placement;

/// What a policy plans with. References and pointers outlive the call.
struct Problem {
  const Matrix<double>& mean_loads;  ///< [layers][experts], tokens per layer call
  const SpeedModels& speeds;         ///< one curve per device
  int devices = 0;
  int slots_per_device = 0;  ///< devices × slots_per_device >= experts; beyond that: replicas
  std::uint64_t seed = 0;    ///< for policies that draw

  /// [steps][layers][experts]: single steps, for policies that look at them. With it, predictions
  /// and bounds are means over these steps; without it (nullptr) they are those of mean_loads.
  const Tensor<double, 3>* trace = nullptr;
  int groups = 1;            ///< expert groups, for hierarchical eplb; divide the experts
  int nodes = 1;             ///< divide the devices; slots are split over nodes in order
  bool even_shares = false;  ///< the engine splits a replicated expert evenly (minmax plans for it)
  bool n_ref_printed = false;  ///< vibe: n_ref = N/E as printed, instead of N/G

  /// Where experts lie now, of this problem's shape; nullptr: nowhere. Policies that move
  /// step by step start from it.
  const Placement* from = nullptr;
  /// Most experts that a device may receive in a layer against `from`; < 0: any number. Policies
  /// that cannot keep to it are refused.
  int receive_budget = -1;

  /// [layers]: lower_bounds() of this problem, where it is known already.
  const std::vector<double>* lower_bound_us = nullptr;

  [[nodiscard]] int layers() const noexcept { return static_cast<int>(mean_loads.extent(0)); }
  [[nodiscard]] int experts() const noexcept { return static_cast<int>(mean_loads.extent(1)); }
  [[nodiscard]] int slots() const noexcept { return devices * slots_per_device; }
};

/// One layer of a problem, as policies see it.
class LayerProblem {
 public:
  LayerProblem(const Problem& problem, int layer) noexcept
      : all_(problem), layer_(static_cast<std::size_t>(layer)) {}

  [[nodiscard]] int layer() const noexcept { return static_cast<int>(layer_); }
  [[nodiscard]] int devices() const noexcept { return all_.devices; }
  [[nodiscard]] int slots_per_device() const noexcept { return all_.slots_per_device; }
  [[nodiscard]] int experts() const noexcept { return all_.experts(); }
  [[nodiscard]] int slots() const noexcept { return all_.slots(); }
  [[nodiscard]] const SpeedModels& speeds() const noexcept { return all_.speeds; }
  [[nodiscard]] const Problem& options() const noexcept { return all_; }

  /// Mean loads, [experts].
  [[nodiscard]] std::span<const double> loads() const noexcept {
    return all_.mean_loads.row(layer_);
  }
  /// Steps of the trace; without a trace the mean loads stand as a single step.
  [[nodiscard]] int steps() const noexcept {
    return all_.trace == nullptr ? 1 : static_cast<int>(all_.trace->extent(0));
  }
  /// Loads of one step, [experts].
  [[nodiscard]] std::span<const double> step(int step) const noexcept {
    return all_.trace == nullptr ? loads() : all_.trace->row(step, layer_);
  }

 private:
  const Problem& all_;
  std::size_t layer_;
};

/// A layer's part of a placement, for policies to fill.
struct LayerSlots {
  std::span<std::int32_t> expert;  ///< [slots]
  std::span<double> share;         ///< [slots]; left alone, replicas share evenly
};

}  // namespace moevar::placement
