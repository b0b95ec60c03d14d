#pragma once

#include <cstdint>
#include <vector>

#include "base/bfloat16.hpp"
#include "base/random.hpp"
#include "exchange/device_exchange.hpp"

namespace moevar::exchange {

/// Made-up traffic between lanes: who sends how many rows to which slot, and what is in them. Every
/// rank knows it all.
class LaneTraffic {
 public:
  /// Rows have `length` values. Every other kind of round is special: round 0 sends nothing, round
  /// 1 sends everything to the last slot of the fleet.
  LaneTraffic(std::size_t devices, std::size_t slots, std::size_t length, std::uint64_t round)
      : devices_(devices), slots_(slots), length_(length), round_(round) {}

  [[nodiscard]] std::int64_t rows(std::size_t source, std::size_t slot) const {
    const auto drawn = static_cast<std::int64_t>(RandomKey(round_)[source][slot].below(most() + 1));
    const bool hot = slot + 1 == devices_ * slots_;
    return round_ == 0 ? 0 : round_ == 1 ? (hot ? static_cast<std::int64_t>(most()) : 0) : drawn;
  }
  [[nodiscard]] static std::size_t most() { return 6; }
  /// Rows that a device sends, or receives, at most.
  [[nodiscard]] std::size_t room() const { return most() * devices_ * slots_; }

  [[nodiscard]] BFloat16 value(std::size_t source, std::size_t slot, std::int64_t row,
                               std::size_t column) const {
    return {static_cast<std::uint16_t>(
        RandomKey(round_)[source][slot][static_cast<std::uint64_t>(row)][column].bits())};
  }
  /// What an expert makes of a value; its own inverse, and never the value itself.
  static BFloat16 worked_on(BFloat16 value) {
    return {static_cast<std::uint16_t>(value.bits ^ 0x5A5AU)};
  }

  /// [devices][slots]: rows that a device sends.
  [[nodiscard]] std::vector<std::int64_t> rows_to(std::size_t device) const {
    std::vector<std::int64_t> all(devices_ * slots_);
    for (std::size_t slot = 0; slot < all.size(); ++slot) {
      all[slot] = rows(device, slot);
    }
    return all;
  }
  /// [devices][slots of this one]: rows that come to a device.
  [[nodiscard]] std::vector<std::int64_t> rows_from(std::size_t device) const {
    std::vector<std::int64_t> all(devices_ * slots_);
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i] = rows(i / slots_, device * slots_ + i % slots_);
    }
    return all;
  }
  /// A device's rows, in the order of their slots.
  [[nodiscard]] std::vector<BFloat16> sent(std::size_t device) const {
    std::vector<BFloat16> values;
    values.reserve(room() * length_);
    for (std::size_t slot = 0; slot < devices_ * slots_; ++slot) {
      add(values, device, slot);
    }
    return values;
  }
  /// What then lies in its `received`.
  [[nodiscard]] std::vector<BFloat16> received(std::size_t device) const {
    std::vector<BFloat16> values;
    values.reserve(room() * length_);
    for (std::size_t source = 0; source < devices_; ++source) {
      for (std::size_t slot = 0; slot < slots_; ++slot) {
        add(values, source, device * slots_ + slot);
      }
    }
    return values;
  }

 private:
  void add(std::vector<BFloat16>& values, std::size_t source, std::size_t slot) const {
    for (std::int64_t row = 0; row < rows(source, slot); ++row) {
      for (std::size_t column = 0; column < length_; ++column) {
        values.push_back(value(source, slot, row, column));
      }
    }
  }

  std::size_t devices_;
  std::size_t slots_;
  std::size_t length_;
  std::uint64_t round_;
};

}  // namespace moevar::exchange
