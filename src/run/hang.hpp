#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "system/whereabouts.hpp"

/// Telling a run that hangs from one that works. Pure.
namespace moevar::run {

/// A rank's sign of life, as it goes over the network.
struct Beat {
  std::uint64_t token = 0;  ///< of the job: a stray packet has another one
  std::uint64_t moves = 0;
  std::int32_t rank = 0;
  std::int32_t phase = -1;
  std::int32_t step = -1;
  std::int32_t first_device = 0;
  std::int32_t devices = 0;
  std::array<char, 28> stage{};
  std::array<char, 28> call{};  ///< empty: in no call of MPI

  static Beat of(const whereabouts::Position& position, std::uint64_t token, int rank) noexcept;
  [[nodiscard]] bool waits() const noexcept { return call.front() != '\0'; }
};

using Seconds = std::chrono::duration<double>;

/// What is known of a rank, at a time of the watcher's own clock.
struct RankSeen {
  Beat beat;
  bool ever = false;      ///< whether it has given a sign of life
  Seconds heard_at{0.0};  ///< the last one
  Seconds moved_at{0.0};  ///< the last one after which it had got somewhere
};

/// All ranks as one watcher sees them. Not thread-safe.
class Lookout {
 public:
  /// `hosts`: a name per rank. `start`: now.
  Lookout(std::vector<std::string> hosts, Seconds limit, Seconds start);

  void hear(const Beat& beat, Seconds now);
  /// The watcher itself did not run for a while, stopped or asleep: nobody is to blame for that.
  void forgive(Seconds now);

  /// A line that names the ranks that keep the others: those that have given no sign of life for
  /// longer than the limit, or, where no rank has got anywhere for as long, those that wait for
  /// nobody. nullopt: all is well.
  [[nodiscard]] std::optional<std::string> verdict(Seconds now) const;
  /// The same of one rank's signs of life alone.
  [[nodiscard]] std::optional<std::string> verdict_of(int rank, Seconds now) const;

 private:
  [[nodiscard]] std::string describe(std::size_t rank) const;
  [[nodiscard]] std::string list(std::span<const std::size_t> ranks) const;

  std::vector<std::string> hosts_;
  std::vector<RankSeen> ranks_;
  Seconds limit_;
};

}  // namespace moevar::run
