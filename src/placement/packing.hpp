#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "placement/speed_model.hpp"

namespace moevar::placement {

/// What lies in a slot: a part of an expert, or nothing yet.
struct Piece {
  static constexpr std::int32_t kBlank = -1;
  double load = 0.0;  ///< tokens
  std::int32_t expert = kBlank;
};

/// The order in which pieces stand: by falling load, ties by rising expert, blanks last.
[[nodiscard]] bool before(const Piece& a, const Piece& b) noexcept;

/// One layer's pieces on their devices, with each device's tokens and time: what minmax searches
/// on. A device's pieces stand in order.
class Packing {
 public:
  Packing(const SpeedModels& speeds, int slots_per_device);

  [[nodiscard]] std::size_t devices() const noexcept { return tokens_.size(); }
  [[nodiscard]] std::size_t width() const noexcept { return width_; }
  [[nodiscard]] std::span<const Piece> on(std::size_t device) const noexcept {
    return std::span(pieces_).subspan(device * width_, width_);
  }
  [[nodiscard]] double tokens(std::size_t device) const noexcept { return tokens_[device]; }
  [[nodiscard]] double time_us(std::size_t device) const noexcept { return time_us_[device]; }
  [[nodiscard]] double time_us(std::size_t device, double tokens) const noexcept {
    return (*speeds_)[device].time_us(tokens);
  }
  [[nodiscard]] const SpeedModels& speeds() const noexcept { return *speeds_; }
  [[nodiscard]] bool holds(std::size_t device, std::int32_t expert) const noexcept;
  [[nodiscard]] std::size_t blanks(std::size_t device) const noexcept;
  /// The slowest device, the first of equals.
  [[nodiscard]] std::size_t slowest() const noexcept;
  [[nodiscard]] double slowest_us() const noexcept { return time_us_[slowest()]; }

  /// Places every piece, heaviest first, on the device with room that falls most short of its
  /// target and does not hold the expert; `room` is [devices], slots to fill, the others stay
  /// blank.
  void fill(std::span<const Piece> falling, std::span<const double> targets,
            std::span<const std::size_t> room);
  /// Exchanges some pieces of device a, by their places, with some of b.
  void exchange(std::size_t a, std::span<const std::size_t> give, std::size_t b,
                std::span<const std::size_t> take);
  /// Whether some expert lies in several slots.
  [[nodiscard]] bool has_replicas() const noexcept { return has_replicas_; }

  /// Two devices as they are, to go back to.
  struct Saved {
    std::array<std::size_t, 2> devices;
    std::vector<Piece> pieces;
  };
  [[nodiscard]] Saved save(std::size_t a, std::size_t b) const;
  void restore(const Saved& saved);

  /// Moves tokens of an expert's piece on device a into a blank of b, which does not hold it.
  void give(std::size_t a, std::int32_t expert, std::size_t b, double tokens);
  /// Puts a piece into a blank of the device.
  void put(std::size_t device, Piece piece);
  /// Takes the i-th piece of the device away.
  void clear(std::size_t device, std::size_t i);

 private:
  [[nodiscard]] std::span<Piece> row(std::size_t device) noexcept {
    return std::span(pieces_).subspan(device * width_, width_);
  }
  void settle(std::size_t device);

  const SpeedModels* speeds_;
  std::size_t width_;
  std::vector<Piece> pieces_;    ///< [devices × width]
  std::vector<double> tokens_;   ///< [devices]
  std::vector<double> time_us_;  ///< [devices]
  bool has_replicas_ = false;
};

}  // namespace moevar::placement
