#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor.hpp"
#include "placement/problem.hpp"
#include "placement/replicas.hpp"

namespace moevar::placement {

/// Tokens of a kernel tile, at whose multiples GEM's latency curves stand; the reconstruction's.
constexpr double kGemTile = 128.0;

/// Swaps that one improve() looks at. A round looks at the straggler's slots with all others, so
/// fleets of thousands need more rounds and more for each. Searches on 64 devices × 5 slots end
/// well below it.
constexpr std::int64_t kMostSwaps = std::int64_t{1} << 23U;

/// L_d(n): a device's time for n tokens, rounded up to whole tiles.
class TileTimes {
 public:
  /// A table per device up to `tokens`, beyond which curves are evaluated. Keeps a reference.
  TileTimes(const SpeedModels& speeds, double tokens);

  [[nodiscard]] double time_us(std::size_t device, double tokens) const noexcept {
    // sums of parts of tokens may end a little above a tile's edge
    constexpr double kBelowOne = 1.0 - 1e-9;
    const double tiles = tokens * (1.0 / kGemTile) + kBelowOne;
    return tiles < tiles_ ? table_[device * stride_ + static_cast<std::size_t>(tiles)]
                          : far_us(device, tokens);
  }

  /// The most tokens within `time_us` (>= 0), in whole tiles; infinity where the table ends first.
  [[nodiscard]] double tokens_within(std::size_t device, double time_us) const noexcept;

 private:
  [[nodiscard]] double far_us(std::size_t device, double tokens) const noexcept;

  const SpeedModels& speeds_;
  std::size_t stride_;
  double tiles_;
  std::vector<double> table_;  ///< [devices][tiles]
};

/// The search of "GEM as reconstructed" in one layer: lowers Σ over steps of max_d L_d(tokens on
/// d). Replicas of an expert share its tokens evenly.
class GemSearch {
 public:
  /// `copies` are what is to be placed, as many as slots. Keeps a reference to the problem.
  GemSearch(const LayerProblem& problem, std::span<const Copy> copies);

  /// In the given order, each copy to the free-slot device that raises the score least; the lower
  /// device of equals. Devices that hold the expert stand back.
  void start_greedily(std::span<const Copy> copies);
  void start_from(std::vector<std::int32_t> expert_of_slot);

  /// Applies the best strictly improving swap between the device that is straggler in most steps
  /// and any other, until there is none or until one more round would have looked at more than
  /// `most_swaps`. The lower experts of equals.
  void improve(std::int64_t most_swaps = kMostSwaps);

  [[nodiscard]] double score() const noexcept { return score_; }  ///< µs, over the steps
  [[nodiscard]] std::span<const std::int32_t> slots() const noexcept { return expert_of_slot_; }

 private:
  /// The three slowest devices of a step: what is slowest beside any two.
  struct Slowest {
    std::array<double, 3> time_us{};
    std::array<std::size_t, 3> device{};
  };
  struct Swap {
    double score = 0.0;
    std::size_t slot = 0;
    std::size_t other = 0;
  };

  struct Candidate {
    double load = 0.0;
    std::size_t slot = 0;
  };
  /// Tokens that may go over in a step.
  struct Frame {
    std::size_t step = 0;
    double least_shift = 0.0;
    double most_shift = 0.0;
  };

  void sum_up(std::size_t device);
  void rank();
  [[nodiscard]] std::size_t straggler() const;
  [[nodiscard]] bool holds(std::size_t device, std::int32_t expert, std::size_t taken) const;
  void sort_steps(std::size_t straggler);
  void frame(std::size_t straggler, std::size_t partner, double most);
  void try_partner(std::size_t straggler, std::size_t partner, Swap& best);
  [[nodiscard]] double excess(std::size_t straggler, std::size_t partner, std::int32_t gives,
                              std::int32_t takes, double most) const;

  const LayerProblem& problem_;
  std::size_t steps_;
  std::size_t devices_;
  std::size_t width_;
  Matrix<double> load_;     ///< [experts][steps], of one copy
  Matrix<double> tokens_;   ///< [devices][steps]
  Matrix<double> time_us_;  ///< [devices][steps]
  TileTimes tiles_;
  std::vector<Slowest> slowest_;       ///< [steps]
  std::vector<double> beside_;         ///< [steps], slowest beside the two that swap
  std::vector<std::size_t> critical_;  ///< [steps], in the order in which swaps are judged
  std::vector<Candidate> candidates_;  ///< of the partner, by rising load in the first of these
  std::vector<Frame> frames_;
  std::vector<std::int32_t> expert_of_slot_;
  double score_ = 0.0;
};

}  // namespace moevar::placement
