#include "conditions/share.hpp"

#include <array>
#include <span>

namespace moevar::conditions {

namespace {

using timeline::CapState;
using timeline::Counters;
using timeline::Reading;

/// As doubles, which hold times of a hundred days and every bit of the reasons exactly.
std::array<double, 5> packed(const Reading& r) {
  return {static_cast<double>(r.time_ns), r.sm_clock_mhz, r.power_w, r.temperature_c,
          static_cast<double>(r.throttle_reasons)};
}
std::array<double, 4> packed(const Counters& c) {
  return {c.energy_mj, c.sw_power_cap_ns, c.sw_thermal_ns, c.hw_thermal_ns};
}
std::array<double, 5> packed(const CapState& c) {
  return {c.requested_w, c.enforced_w, c.default_w, c.min_w, c.max_w};
}

void unpack(std::span<const double> from, Reading& to) {
  to = {static_cast<Nanoseconds>(from[0]), from[1], from[2], from[3],
        static_cast<std::uint64_t>(from[4])};
}
void unpack(std::span<const double> from, Counters& to) {
  to = {from[0], from[1], from[2], from[3]};
}
void unpack(std::span<const double> from, CapState& to) {
  to = {from[0], from[1], from[2], from[3], from[4]};
}

template <class T>
std::vector<T> share_all(const mpi::Communicator& comm, const std::vector<T>& mine,
                         std::size_t devices) {
  constexpr std::size_t kFields = decltype(packed(T{})){}.size();
  std::vector<double> sent;
  sent.reserve(kFields * mine.size());
  for (const auto& item : mine) {
    const auto fields = packed(item);
    sent.insert(sent.end(), fields.begin(), fields.end());
  }
  std::vector<double> received(kFields * devices);
  comm.all_gather(std::span<const double>(sent), received);
  std::vector<T> all(devices);
  for (std::size_t i = 0; i < devices; ++i) {
    unpack(std::span<const double>(received).subspan(kFields * i, kFields), all[i]);
  }
  return all;
}

}  // namespace

std::vector<Reading> share(const mpi::Communicator& comm, const std::vector<Reading>& mine,
                           std::size_t devices) {
  return share_all(comm, mine, devices);
}

std::vector<Counters> share(const mpi::Communicator& comm, const std::vector<Counters>& mine,
                            std::size_t devices) {
  return share_all(comm, mine, devices);
}

std::vector<CapState> share(const mpi::Communicator& comm, const std::vector<CapState>& mine,
                            std::size_t devices) {
  return share_all(comm, mine, devices);
}

}  // namespace moevar::conditions
