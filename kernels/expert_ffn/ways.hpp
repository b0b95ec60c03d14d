#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "expert_ffn/grouped_gemm.hpp"
#include "system/cuda.hpp"

namespace moevar::expert_ffn {

/// One way to make a product of all groups.
struct Way {
  const GroupedGemm* gemm = nullptr;  ///< null: cuBLASLt on `lanes` lanes
  bool along_columns = false;
  std::size_t lanes = 1;

  /// Whether the activations come out of the product itself.
  [[nodiscard]] bool fused() const noexcept;
  [[nodiscard]] std::string name() const;
};

/// Indices of the ways of a run's first and second product.
struct Choice {
  std::size_t first = 0;
  std::size_t second = 0;
};

/// The ways that there are here, and which of them a run takes.
struct KnownWays {
  std::vector<Way> first;
  std::vector<Way> second;
  std::map<std::size_t, Choice> tuned;  ///< by rows a group
  std::optional<Choice> forced;

  /// What was forced; else what was tuned for the nearest number of rows a group, by ratio; else
  /// CUTLASS with a tile that so many rows fill.
  [[nodiscard]] Choice choice_for(std::size_t rows_a_group) const;

 private:
  [[nodiscard]] Choice rule_of_thumb(std::size_t rows_a_group) const;
};

/// The fastest of `ways`, each queued by `start(way)`. Waits for the GPU. Those that cannot run
/// here are passed over; throws EnvironmentError where that are all of them.
std::size_t fastest(const std::vector<Way>& ways, const cuda::Stream& stream,
                    const std::function<void(const Way&)>& start);

}  // namespace moevar::expert_ffn
