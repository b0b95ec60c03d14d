#pragma once

#include <cstdint>
#include <span>

namespace moevar::exchange {

/// The two all-to-alls of a MoE layer between the devices of a fleet, rank d driving device d. Rows
/// are row-major float32 of a fixed length. Nobody knows beforehand how many rows come: the counts
/// travel first, as they must in a layer whose router decides on the spot.
class Exchange {
 public:
  Exchange() = default;
  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  Exchange(Exchange&&) = delete;
  Exchange& operator=(Exchange&&) = delete;

  /// Sends `rows`, which are in the order of their slots, to the devices of these slots.
  /// `rows_to`, [devices][slots of a device]: rows for every slot of the fleet. `rows_from`, of the
  /// same shape, becomes the rows that came from every device for every slot of this one, which lie
  /// in `received` in the same order. Returns how many came. Collective.
  /// Throws CheckError where `received` is too small, EnvironmentError where more rows go or come
  /// than the library can address.
  virtual std::int64_t dispatch(std::span<const float> rows, std::span<const std::int64_t> rows_to,
                                std::span<std::int64_t> rows_from, std::span<float> received) = 0;

  /// The way back of the latest dispatch: `results` are as `received` was, `returned` as `rows`.
  /// Collective.
  virtual void combine(std::span<const float> results, std::span<float> returned) = 0;
};

}  // namespace moevar::exchange
