#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "placement/packing.hpp"

namespace moevar::placement {

/// Local search on a packing: exchanges between devices that make the slowest one faster.
/// Deterministic; ties go to the lower device and the heavier piece.
class Descent {
 public:
  /// Keeps a reference to `packing`. Stops once the slowest device is within `enough_us`.
  Descent(Packing& packing, double enough_us) : packing_(packing), enough_us_(enough_us) {}

  enum class Effort {
    single,   ///< exchanges of one piece for one
    thorough  ///< also of two for two, and chains over three devices
  };
  /// Until no exchange helps.
  void run(Effort effort);

 private:
  /// One or two pieces of a device.
  struct Bundle {
    double load = 0.0;
    std::array<std::size_t, 2> pieces{};
    std::size_t count = 0;
  };
  struct Exchange {
    std::size_t device = 0;  ///< the partner
    Bundle give;
    Bundle take;
    double time_us = 0.0;  ///< of the slower of both, afterwards
  };

  void bundles_of(std::size_t device, std::size_t size, std::vector<Bundle>& bundles) const;
  [[nodiscard]] bool within_budget(std::size_t device, const Bundle& give, std::size_t from,
                                   const Bundle& take) const;
  [[nodiscard]] bool may(std::size_t a, const Bundle& give, std::size_t b,
                         const Bundle& take) const;
  bool best_with(std::size_t a, std::size_t b, double limit_us, Exchange& best);
  bool best_exchange(std::size_t a, std::size_t never, std::size_t size, double limit_us,
                     Exchange& best);
  void apply(std::size_t a, const Exchange& exchange);
  bool chain(std::size_t a);
  bool pass_on(std::size_t a, std::size_t b, double limit_us);

  Packing& packing_;
  double enough_us_;
  std::vector<Bundle> mine_;    ///< of the device that gives, by falling load
  std::vector<Bundle> theirs_;  ///< of the partner
};

}  // namespace moevar::placement
