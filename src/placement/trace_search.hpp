#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "placement/packing.hpp"
#include "placement/step_times.hpp"

namespace moevar::placement {

/// Local search on the sum over steps of the slowest device's time: exchanges of two slots and
/// shifts of shares between replicas, from a placement that is good already. It keeps to the
/// problem's budget of received experts and, where it asks for even shares, shifts none.
/// Deterministic, on every machine; ties go to the lower slot.
class TraceSearch {
 public:
  /// Keeps a reference to `times`, whose slots it changes.
  /// `budget`: nullptr, or what the devices may receive; outlives the search.
  TraceSearch(const LayerProblem& problem, StepTimes& times, const ReceiveBudget* budget);

  /// Until nothing helps, or about `budget` exchanges were looked at.
  void run(std::size_t budget);

 private:
  // single precision in lanes of a fixed number: the same sums on every machine
  static constexpr std::size_t kLanes = 4;
  using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

  bool relieve(std::size_t a, bool all);
  bool pass(std::size_t budget, bool all);
  [[nodiscard]] bool in_vain(std::size_t a, std::size_t b) const;
  bool exchange_with(std::size_t a, std::size_t b);
  bool shift_to(std::size_t a, std::size_t b);
  [[nodiscard]] bool may_exchange(std::size_t slot_a, std::size_t slot_b) const;
  [[nodiscard]] bool may_receive(std::size_t slot, std::int32_t expert) const;
  void moved(std::size_t slot_a, std::size_t slot_b);

  void load_slot(std::size_t slot);
  void load_device(std::size_t device);
  void load_others(std::size_t a, std::size_t b);
  /// Sets left_ and right_: the times of a and b, each a line around its present tokens, after
  /// `part` of the tokens `give` ([blocks]) has gone from a to b.
  void hand_over(std::size_t a, std::size_t b, const Lanes* give, float part) noexcept;
  /// The total after that and after `take` has come back.
  [[nodiscard]] float total_after(std::size_t a, std::size_t b, const Lanes* take) const noexcept;

  const LayerProblem& problem_;
  StepTimes& times_;
  const ReceiveBudget* budget_;
  bool replicas_;
  std::size_t blocks_;          ///< of kLanes steps; past the last step all is 0
  std::vector<Lanes> tokens_;   ///< [slots][blocks]
  std::vector<Lanes> time_us_;  ///< [devices][blocks]
  std::vector<Lanes> slope_;    ///< [devices][blocks], µs per token around the present tokens
  std::vector<Lanes> others_;   ///< [blocks], the slowest of all but the two at hand
  std::vector<Lanes> left_;     ///< [blocks]
  std::vector<Lanes> right_;    ///< [blocks]
  std::vector<double> change_;  ///< [steps]
  std::size_t looked_at_ = 0;
  // a pair of devices that had nothing to exchange is left alone until one of both changes
  std::size_t moves_ = 1;
  std::vector<std::size_t> changed_;  ///< [devices], move that changed it last
  std::vector<std::size_t> tried_;    ///< [devices][devices], move before which it was in vain
};

}  // namespace moevar::placement
