#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "placement/descent.hpp"
#include "placement/packing.hpp"
#include "placement/problem.hpp"

namespace moevar::placement {

/// A layer placed for given loads, as near to its lower bound as exchanges and replicas bring it.
///
/// Experts heavier than the fastest device's target are cut into as many pieces as that takes. The
/// pieces go, heaviest first, to the device that falls most short of its target: the tokens it does
/// within the bound. Spare slots stay blank, spread over the devices, until exchanges have done
/// what they can; then a device above its target gives a part of its heaviest piece to a device
/// with a blank, just as much as that lacks. Each such gift settles a device for good, so one blank
/// a device is enough to bring all to their targets (McNaughton's wrap-around rule, with slots).
class MeanSearch {
 public:
  static constexpr double kEnough = 2e-5;  ///< relative to the bound: as near as makes a difference

  /// `loads` is [experts], tokens; it and `speeds` outlive the search.
  MeanSearch(std::span<const double> loads, const SpeedModels& speeds, int slots_per_device);

  /// Replicas share as they like.
  void place();
  /// Replicas share evenly: EPLB's copies, then exchanges, until the slowest device is within
  /// `enough` of the bound (relative).
  void place_evenly(double enough = kEnough);

  /// From where experts lie now ([slots]), without a device receiving more than the budget allows,
  /// which outlives the search. Replicas that the loads don't need give up their tokens first.
  void improve(std::span<const std::int32_t> expert_of_slot, const ReceiveBudget& budget,
               bool even_shares);

  /// Writes experts and shares; a blank takes, at no share, an expert that lies on its
  /// device now or, where nothing is said of that, the heaviest that it lacks.
  void write(LayerSlots slots) const;
  /// The same after place_evenly, or improve with even shares.
  void write_evenly(LayerSlots slots) const;

 private:
  struct Gift {
    std::size_t to = 0;
    std::size_t trade = 0;  ///< the piece that `to` hands over to make room; width(): none
    double tokens = 0.0;    ///< what `to` lacks
  };

  [[nodiscard]] std::vector<Piece> cut() const;
  [[nodiscard]] std::vector<std::size_t> room_for(std::size_t pieces) const;
  void spend_and_descend();
  void descend(Descent::Effort effort, double enough = kEnough);
  void spend_blanks();
  [[nodiscard]] double surplus(std::size_t device) const;
  [[nodiscard]] std::size_t lightest_for(std::size_t device, std::size_t from) const;
  [[nodiscard]] bool find_gift(std::size_t a, Gift& gift) const;
  bool shift(std::size_t a);
  bool relieve(std::size_t a);

  std::span<const double> loads_;
  double bound_us_;
  Packing packing_;
  const ReceiveBudget* budget_ = nullptr;
  std::vector<double> targets_;  ///< [devices], tokens
};

}  // namespace moevar::placement
