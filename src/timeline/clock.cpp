#include "timeline/clock.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <limits>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::timeline {

Nanoseconds monotonic_raw_ns() {
  constexpr Nanoseconds kSecond = 1'000'000'000;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<Nanoseconds>(now.tv_sec) * kSecond + now.tv_nsec;
}

ClockReading time_clock_reading() {
  constexpr int kReadings = 4096;
  const Nanoseconds first = monotonic_raw_ns();
  Nanoseconds last = first;
  Nanoseconds step = std::numeric_limits<Nanoseconds>::max();
  for (int i = 0; i < kReadings; ++i) {
    const Nanoseconds now = monotonic_raw_ns();
    step = now > last ? std::min(step, now - last) : step;
    last = now;
  }
  return {static_cast<double>(last - first) / kReadings, step};
}

OffsetPoint offset_of(std::span<const PingPong> burst) {
  const auto round_trip = [](const PingPong& p) { return p.received - p.sent; };
  const PingPong& quickest = *std::ranges::min_element(burst, {}, round_trip);
  OffsetPoint point{quickest.sent + round_trip(quickest) / 2, quickest.sent - quickest.served,
                    quickest.received - quickest.served, round_trip(quickest)};
  OffsetPoint tight = point;
  for (const PingPong& p : burst) {
    if (2 * round_trip(p) <= 3 * point.min_round_trip_ns) {
      tight.lower = std::max(tight.lower, p.sent - p.served);
      tight.upper = std::min(tight.upper, p.received - p.served);
    }
  }
  return tight.lower <= tight.upper ? tight : point;
}

double ClockFit::offset_ns(Nanoseconds t) const noexcept {
  return slope * static_cast<double>(t - epoch) + intercept_ns;
}

Nanoseconds ClockFit::to_other(Nanoseconds t) const noexcept {
  return t - std::llround(offset_ns(t));
}

ClockFit fit(std::span<const OffsetPoint> points, Nanoseconds epoch) {
  const Nanoseconds quickest =
      std::ranges::min(points, {}, &OffsetPoint::min_round_trip_ns).min_round_trip_ns;
  std::vector<OffsetPoint> kept;
  std::ranges::copy_if(points, std::back_inserter(kept),
                       [&](const OffsetPoint& p) { return p.min_round_trip_ns <= 2 * quickest; });
  const auto count = static_cast<double>(kept.size());
  // both axes are counted from the first point, so that sums of squares keep their digits
  const auto middle = [](const OffsetPoint& p) { return p.lower + (p.upper - p.lower) / 2; };
  const Nanoseconds t0 = kept.front().at;
  const Nanoseconds o0 = middle(kept.front());
  double mean_t = 0.0;
  double mean_o = 0.0;
  for (const OffsetPoint& p : kept) {
    mean_t += static_cast<double>(p.at - t0) / count;
    mean_o += static_cast<double>(middle(p) - o0) / count;
  }
  double squares = 0.0;
  double products = 0.0;
  for (const OffsetPoint& p : kept) {
    const double t = static_cast<double>(p.at - t0) - mean_t;
    squares += t * t;
    products += t * (static_cast<double>(middle(p) - o0) - mean_o);
  }
  ClockFit line;
  line.epoch = epoch;
  line.at = t0 + std::llround(mean_t);
  line.slope = squares > 0.0 ? products / squares : 0.0;
  line.intercept_ns =
      static_cast<double>(o0) + mean_o - line.slope * (static_cast<double>(t0 - epoch) + mean_t);
  line.min_round_trip_ns = quickest;
  for (const OffsetPoint& p : kept) {
    const double distance = std::abs(line.offset_ns(p.at) - static_cast<double>(middle(p)));
    const auto half_width = static_cast<double>(p.upper - p.lower) / 2.0;
    line.residual_ns = std::max<Nanoseconds>(
        line.residual_ns, static_cast<Nanoseconds>(std::ceil(distance + half_width)));
  }
  return line;
}

ClockFit compose(const ClockFit& child_to_parent, const ClockFit& parent_to_root) {
  ClockFit both = child_to_parent;
  const double kept = 1.0 - parent_to_root.slope;
  // s = s1 + s2 - s1 s2, which keeps the digits that 1 - (1 - s1)(1 - s2) would lose
  both.slope =
      child_to_parent.slope + parent_to_root.slope - child_to_parent.slope * parent_to_root.slope;
  both.intercept_ns = child_to_parent.intercept_ns * kept + parent_to_root.intercept_ns;
  both.residual_ns = child_to_parent.residual_ns + parent_to_root.residual_ns;
  both.min_round_trip_ns =
      std::max(child_to_parent.min_round_trip_ns, parent_to_root.min_round_trip_ns);
  return both;
}

ClockFit between(const ClockFit& before, const ClockFit& after) {
  ClockFit line = before;
  const double first = before.offset_ns(before.at);
  const auto span = static_cast<double>(after.at - before.at);
  line.slope = span > 0.0 ? (after.offset_ns(after.at) - first) / span : 0.0;
  line.epoch = before.at;
  line.intercept_ns = first;
  line.at = before.at + (after.at - before.at) / 2;
  line.residual_ns = std::max(before.residual_ns, after.residual_ns);
  line.min_round_trip_ns = std::max(before.min_round_trip_ns, after.min_round_trip_ns);
  return line;
}

namespace {

constexpr int kPing = 81;
constexpr int kPong = 82;
constexpr int kFit = 83;

void pause(const SyncOptions& options) {
  const timespec span{0, options.pause_ns};
  nanosleep(&span, nullptr);
}

/// Answers all of a client's exchanges. Call it while the client calls measure() for this rank.
void serve(const mpi::Communicator& comm, int client, int exchanges, const ClockSource& now) {
  for (int i = 0; i < exchanges; ++i) {
    MOEVAR_MPI(MPI_Recv(nullptr, 0, MPI_INT64_T, client, kPing, comm.raw(), MPI_STATUS_IGNORE));
    const Nanoseconds reading = now();
    MOEVAR_MPI(MPI_Send(&reading, 1, MPI_INT64_T, client, kPong, comm.raw()));
  }
}

/// One burst of exchanges with `server`.
OffsetPoint measure(const mpi::Communicator& comm, int server, int exchanges,
                    const ClockSource& now) {
  std::vector<PingPong> burst(static_cast<std::size_t>(exchanges));
  for (PingPong& p : burst) {
    p.sent = now();
    MOEVAR_MPI(MPI_Send(nullptr, 0, MPI_INT64_T, server, kPing, comm.raw()));
    MOEVAR_MPI(MPI_Recv(&p.served, 1, MPI_INT64_T, server, kPong, comm.raw(), MPI_STATUS_IGNORE));
    p.received = now();
  }
  return offset_of(burst);
}

using PackedFit = std::array<double, 2>;
using PackedTimes = std::array<Nanoseconds, 4>;

/// Sends a fit, or receives one: the sender's `fit` goes in, every other rank's comes out.
ClockFit transfer(const mpi::Communicator& comm, const ClockFit& mine, int sender, int receiver) {
  PackedFit line{mine.slope, mine.intercept_ns};
  PackedTimes times{mine.epoch, mine.at, mine.min_round_trip_ns, mine.residual_ns};
  if (comm.rank() == sender) {
    MOEVAR_MPI(MPI_Send(line.data(), 2, MPI_DOUBLE, receiver, kFit, comm.raw()));
    MOEVAR_MPI(MPI_Send(times.data(), 4, MPI_INT64_T, receiver, kFit, comm.raw()));
    return mine;
  }
  MOEVAR_MPI(MPI_Recv(line.data(), 2, MPI_DOUBLE, sender, kFit, comm.raw(), MPI_STATUS_IGNORE));
  MOEVAR_MPI(MPI_Recv(times.data(), 4, MPI_INT64_T, sender, kFit, comm.raw(), MPI_STATUS_IGNORE));
  return {line[0], line[1], times[0], times[1], times[2], times[3]};
}

/// One round of the tree for a pair: the synchronised `server` and the new `client`.
void join(const mpi::Communicator& comm, int server, int client, const SyncOptions& options,
          ClockFit& mine) {
  if (comm.rank() == server) {
    transfer(comm, mine, server, client);
    for (int i = 0; i < options.points; ++i) {
      serve(comm, client, options.exchanges, options.now);
    }
  } else if (comm.rank() == client) {
    const ClockFit parent = transfer(comm, mine, server, client);
    std::vector<OffsetPoint> points;
    for (int i = 0; i < options.points; ++i) {
      points.push_back(measure(comm, server, options.exchanges, options.now));
      pause(options);
    }
    mine = compose(fit(points, parent.epoch), parent);
  }
}

/// Every rank of `leaders` gets its fit to rank 0: in the round of stride k, a multiple r of 2k
/// serves r + k; the ranks beyond the power of two come last.
ClockFit synchronise_leaders(const mpi::Communicator& leaders, const SyncOptions& options) {
  ClockFit mine;
  mine.epoch = options.now();
  leaders.broadcast(std::span(&mine.epoch, 1));
  mine.at = options.now();
  int power = 1;
  while (2 * power <= leaders.size()) {
    power *= 2;
  }
  for (int stride = power / 2; stride >= 1; stride /= 2) {
    const int place = leaders.rank() % (2 * stride);
    if (leaders.rank() < power && (place == 0 || place == stride)) {
      const int server = leaders.rank() - place;
      join(leaders, server, server + stride, options, mine);
    }
  }
  const int partner = leaders.rank() < power ? leaders.rank() + power : leaders.rank();
  if (partner < leaders.size()) {
    join(leaders, partner - power, partner, options, mine);
  }
  return mine;
}

/// Checks that this node's ranks read one clock; returns how far that is known.
OffsetPoint check_shared_clock(const mpi::Communicator& node, const SyncOptions& options) {
  OffsetPoint mine;
  for (int rank = 1; rank < node.size(); ++rank) {
    if (node.rank() == 0) {
      serve(node, rank, options.check_exchanges, options.now);
    } else if (node.rank() == rank) {
      mine = measure(node, 0, options.check_exchanges, options.now);
    }
  }
  return mine;
}

}  // namespace

CommonClock synchronise(const mpi::Communicator& comm, const SyncOptions& options) {
  const auto node = options.one_clock_per_node ? comm.split_by_node() : comm.split(comm.rank());
  const auto leaders = comm.split(node.is_root() ? 0 : -1);
  ClockFit mine;
  if (node.is_root()) {
    mine = synchronise_leaders(leaders, options);
  }
  const OffsetPoint local = check_shared_clock(node, options);
  mpi::on_all(comm, [&] {
    if (local.lower > 0 || local.upper < 0) {
      throw EnvironmentError(fmt::format(
          "rank {} reads another CLOCK_MONOTONIC_RAW than the first rank of its node: they differ "
          "by {} to {} ns; ranks of a node have to share one time namespace",
          comm.rank(), local.lower, local.upper));
    }
  });
  PackedFit line{mine.slope, mine.intercept_ns};
  PackedTimes times{mine.epoch, mine.at, mine.min_round_trip_ns, mine.residual_ns};
  node.broadcast(std::span<double>(line));
  node.broadcast(std::span<std::int64_t>(times));
  mine = {line[0], line[1], times[0], times[1], times[2], times[3]};
  mine.residual_ns += (local.upper - local.lower + 1) / 2;
  mine.min_round_trip_ns = std::max(mine.min_round_trip_ns, local.min_round_trip_ns);
  CommonClock common{mine, mine.residual_ns};
  comm.all_reduce_max(std::span(&common.fleet_residual_ns, 1));
  return common;
}

}  // namespace moevar::timeline
