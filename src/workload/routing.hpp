#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/tensor.hpp"
#include "workload/loads.hpp"

namespace moevar::workload {

/// What every source of routing must know. `layers` counts MoE layers.
struct RoutingShape {
  int layers = 0;
  int experts = 0;
  int top_k = 0;
};

/// Parameters of synthetic routing; ranges are checked by make_synthetic.
struct SyntheticSpec {
  double skew = 0.5;  ///< Zipf exponent around which each layer's is drawn, >= 0
  double burst =
      0.0;  ///< share of experts that are temporal (GEM): groups that burst together, in [0, 1]
  double drift = 0.0;  ///< part of the popularity that is exchanged per step, in [0, 1]
  /// Experts of the layer whose popularities are spread over this one's, so that their distribution
  /// is the same however many experts there are; 0: its own.
  int like_experts = 0;
};

/// Where the tokens of a step go. Pure: a value depends on the seed, the step and the layer alone,
/// never on earlier calls, so any rank may compute any step.
class Routing {
 public:
  virtual ~Routing() = default;
  [[nodiscard]] virtual RoutingShape shape() const = 0;

  /// Writes one step's loads. `counts` is [layers][experts], flat; each layer sums to tokens ×
  /// top_k. `tokens` >= 1 is the step's tokens over all devices.
  virtual void sample(std::int64_t step, std::int64_t tokens,
                      std::span<std::uint32_t> counts) const = 0;

  /// The experts of every token of one step and layer, [tokens][top_k], no expert twice in a row.
  /// Their histogram is exactly sample()'s row. Used where tokens really move (cpu, cuda).
  [[nodiscard]] virtual Matrix<std::int32_t> token_experts(std::int64_t step, int layer,
                                                           std::int64_t tokens) const = 0;
};

/// Synthetic routing (synthetic.cpp). Throws InputError where a parameter is out of its range.
std::unique_ptr<Routing> make_synthetic(const RoutingShape& shape, const SyntheticSpec& spec,
                                        std::uint64_t seed);

/// Routing from recorded expert counts. `text` is the file's content, `path` names it in errors and
/// its ending picks the format: .json {"logical_count": [layers][experts]} or
/// [steps][layers][experts] (all-zero layers are dense and skipped), .csv
/// [step,]layer,expert,count. `expected`: layers = 0 takes the file's; fewer layers than the file
/// has takes its first ones. Throws InputError: not parseable, wrong shape, negative, NaN or huge
/// counts, more layers than there are.
std::unique_ptr<Routing> make_counts(const std::string& text, const std::string& path,
                                     const RoutingShape& expected, std::uint64_t seed);

/// Routing from recorded top-k ids: .json {"topk_ids": [layers][tokens][top_k]} or
/// [steps][layers][tokens][top_k], .csv [step,]layer,token,expert (top_k rows per token).
/// When another number of tokens is asked for than was recorded, whole recorded tokens are drawn
/// with replacement, the same ones in all layers. Throws InputError as make_counts does, and for an
/// id out of range or twice in one token.
std::unique_ptr<Routing> make_tokens(const std::string& text, const std::string& path,
                                     const RoutingShape& expected, std::uint64_t seed);

}  // namespace moevar::workload
