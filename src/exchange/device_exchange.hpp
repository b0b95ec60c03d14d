#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace moevar::cuda {
class Stream;
}

namespace moevar::exchange {

/// A device's part in a dispatch. Pointers are to that device's memory, spans to the host's.
struct DispatchLane {
  const void* rows = nullptr;             ///< in the order of their slots, [devices][slots]
  std::span<const std::int64_t> rows_to;  ///< rows for every slot of the fleet, [devices][slots]
  /// Rows that come from every device for every slot of this one, [devices][slots]; they lie in
  /// `received` in this order. Read where counts are known, written where they are exchanged.
  std::span<std::int64_t> rows_from;
  void* received = nullptr;
  std::int64_t room = 0;  ///< rows that fit into `received`
  const cuda::Stream* stream = nullptr;
};

/// A device's part in a combine: `results` are as `received` was, `returned` as `rows`.
struct CombineLane {
  const void* results = nullptr;
  void* returned = nullptr;
  const cuda::Stream* stream = nullptr;
};

enum class Counts : std::uint8_t {
  known,     ///< rows_from is right already, from the plan; nothing waits for it
  exchanged  ///< counts travel first, as they must where a router decides on the spot
};

/// What is fixed for the life of an exchange; the same on every rank.
struct ExchangeShape {
  int lanes = 1;  ///< devices of a rank, at least 1: device d is lane d % lanes of rank d / lanes
  int slots = 0;  ///< of a device
  std::size_t row_bytes = 0;  ///< 2 bytes for each of a row's bfloat16
  Counts counts = Counts::known;
};

/// The two all-to-alls of a MoE layer between GPUs, or parts of them, each with a stream of its
/// own. Work is queued in the order of the streams: it begins when what was queued before is done,
/// and what is queued later finds its rows there. Streams of lanes differ. Every call but wait() is
/// collective, with all of a rank's lanes in their order.
class DeviceExchange {
 public:
  DeviceExchange() = default;
  virtual ~DeviceExchange() = default;
  DeviceExchange(const DeviceExchange&) = delete;
  DeviceExchange& operator=(const DeviceExchange&) = delete;
  DeviceExchange(DeviceExchange&&) = delete;
  DeviceExchange& operator=(DeviceExchange&&) = delete;

  /// Makes room on the host, where it is needed, for so many rows of all of this rank's lanes
  /// together, sent and received in one dispatch. Called before the first dispatch, not while one
  /// is under way. Not collective.
  virtual void reserve(std::int64_t sent_rows, std::int64_t received_rows) = 0;

  /// Sends every lane's rows to the devices of their slots. `rows` and `received` stay untouched by
  /// others until the lane's stream has come past it.
  /// Throws CheckError where there is not enough room, EnvironmentError where more rows go or come
  /// than the library can address, or where a library fails or its time is up.
  virtual void dispatch(std::span<const DispatchLane> lanes) = 0;

  /// The way back of the latest dispatch. Throws as dispatch() does.
  virtual void combine(std::span<const CombineLane> lanes) = 0;

  /// Waits until `stream`, one of a lane's, has done everything. Throws EnvironmentError that says
  /// who waits and what to do where a library failed or the time limit is over. Not collective.
  virtual void wait(const cuda::Stream& stream) = 0;

  /// Whether dispatch() and combine() only queue work, so that a CUDA graph may hold them, with the
  /// counts of when it was recorded.
  [[nodiscard]] virtual bool capturable() const noexcept = 0;

  /// How rows travel: "local", "staged" or "nccl".
  [[nodiscard]] virtual std::string_view path() const noexcept = 0;
};

}  // namespace moevar::exchange
