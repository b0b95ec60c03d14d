#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/units.hpp"
#include "system/mpi.hpp"

/// A common clock for the ranks of a run.
namespace moevar::timeline {

/// CLOCK_MONOTONIC_RAW: NTP does not slew it, and all processes of a node read the same one.
Nanoseconds monotonic_raw_ns();

/// What it takes to read a clock, and how finely that one tells the time.
struct ClockReading {
  double cost_ns = 0.0;     ///< of one reading, among many
  Nanoseconds step_ns = 0;  ///< the smallest difference between readings
};
/// Reads monotonic_raw_ns() some thousand times.
ClockReading time_clock_reading();

/// A clock to be read; tests put ones with a known offset and drift here.
using ClockSource = std::function<Nanoseconds()>;

/// One exchange of two clocks' readings: the server answered between the client's two readings.
struct PingPong {
  Nanoseconds sent = 0;      ///< client's clock
  Nanoseconds served = 0;    ///< server's clock
  Nanoseconds received = 0;  ///< client's clock
};

/// What a burst of exchanges says: client − server lies in [lower, upper] at client time `at`.
struct OffsetPoint {
  Nanoseconds at = 0;
  Nanoseconds lower = 0;
  Nanoseconds upper = 0;
  Nanoseconds min_round_trip_ns = 0;
};

/// The tightest bounds of a burst. Only exchanges within 1.5 × the smallest round trip are kept;
/// should their bounds contradict each other (clocks that drift), the quickest exchange alone
/// counts. `burst` is not empty.
OffsetPoint offset_of(std::span<const PingPong> burst);

/// A clock as seen from another: other = t − (slope × (t − epoch) + intercept_ns).
struct ClockFit {
  double slope = 0.0;
  double intercept_ns = 0.0;
  Nanoseconds epoch = 0;  ///< t is counted from here, so that digits don't cancel
  Nanoseconds at = 0;     ///< the middle of the time in which offsets were taken, on this clock
  Nanoseconds min_round_trip_ns = 0;
  Nanoseconds residual_ns = 0;  ///< the result is this near to the truth

  [[nodiscard]] double offset_ns(Nanoseconds t) const noexcept;
  [[nodiscard]] Nanoseconds to_other(Nanoseconds t) const noexcept;
};

/// Least squares through the middles of the points' bounds; points whose round trip is over twice
/// the smallest are left out. The residual is the largest over the kept points of distance to the
/// line plus half the width of the bounds. `points` is not empty; one alone gives slope 0.
ClockFit fit(std::span<const OffsetPoint> points, Nanoseconds epoch);

/// child → parent, then parent → root, of the same epoch: with (s₁, c₁) and (s₂, c₂),
/// 1 − s = (1 − s₁)(1 − s₂) and c = c₁(1 − s₂) + c₂. Residuals add up; the round trip is the
/// larger.
ClockFit compose(const ClockFit& child_to_parent, const ClockFit& parent_to_root);

/// The line through the offsets of two synchronisations, each taken where it was measured: between
/// them the slope comes from their distance, not from a short burst. The residual is the larger.
ClockFit between(const ClockFit& before, const ClockFit& after);

/// How synchronise() works.
struct SyncOptions {
  ClockSource now = monotonic_raw_ns;
  int points = 8;                  ///< bursts per pair
  int exchanges = 16;              ///< per burst
  int check_exchanges = 64;        ///< with each rank of a node: some are quick on a busy machine
  Nanoseconds pause_ns = 200'000;  ///< between bursts
  bool one_clock_per_node = true;  ///< false: every rank is taken to have a clock of its own
};

/// The common clock as one rank sees it.
struct CommonClock {
  ClockFit fit;                       ///< this rank's clock → rank 0's
  Nanoseconds fleet_residual_ns = 0;  ///< the largest residual of all ranks
};

/// Synchronises all ranks to the clock of rank 0; collective. Ranks of one node share a clock,
/// which is checked by exchange with the node's first rank; the first ranks form a tree that is
/// synchronised from the root in about log2(nodes) rounds. Throws an error of status
/// `environment` on every rank where ranks of one node turn out to read different clocks.
/// Source of the tree: HCA3 (Hunold, Carpen-Amarie, CLUSTER 2018).
CommonClock synchronise(const mpi::Communicator& comm, const SyncOptions& options = {});

}  // namespace moevar::timeline
