#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/tensor.hpp"

namespace moevar::fleet {

/// Which expert lies in which slot of a device, and where its weights are, in memory of type
/// `Weights`. Two slots of a layer with the same expert share its memory; memory that no slot uses
/// any more is kept for the next expert that comes.
template <typename Weights>
class SlotTable {
 public:
  struct Slot {
    std::int32_t expert = -1;
    std::shared_ptr<Weights> weights;
  };

  /// Empty slots, [layers][slots].
  SlotTable(int layers, int slots)
      : slots_({static_cast<std::size_t>(layers), static_cast<std::size_t>(slots)}) {}

  [[nodiscard]] int layers() const noexcept { return static_cast<int>(slots_.extent(0)); }
  [[nodiscard]] int slots() const noexcept { return static_cast<int>(slots_.extent(1)); }
  [[nodiscard]] const Slot& at(int layer, int slot) const { return slots_(layer, slot); }

  /// The slot of a layer that holds `expert`; nullptr where none does.
  [[nodiscard]] const Slot* find(int layer, std::int32_t expert) const {
    const auto row = slots_.row(layer);
    const auto found = std::ranges::find(row, expert, &Slot::expert);
    return found == row.end() ? nullptr : &*found;
  }

  /// Memory that no slot uses; nullptr where there is none.
  [[nodiscard]] std::shared_ptr<Weights> take_spare() {
    if (spares_.empty()) {
      return nullptr;
    }
    auto spare = std::move(spares_.back());
    spares_.pop_back();
    return spare;
  }
  void give_spare(std::shared_ptr<Weights> weights) { spares_.push_back(std::move(weights)); }

  /// Puts a layer's experts in place all at once; memory that falls free becomes spare.
  void place(int layer, std::vector<Slot> experts) {
    std::ranges::swap_ranges(slots_.row(layer), experts);
    for (Slot& old : experts) {
      if (old.weights.use_count() == 1) {  // no slot holds it any more
        spares_.push_back(std::move(old.weights));
      }
      old.weights.reset();
    }
  }

 private:
  Matrix<Slot> slots_;
  std::vector<std::shared_ptr<Weights>> spares_;
};

}  // namespace moevar::fleet
