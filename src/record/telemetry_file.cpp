#include "record/telemetry_file.hpp"

#include <cstdint>
#include <vector>

#include <fmt/format.h>

#include "record/put.hpp"

namespace moevar::record {

namespace {

using timeline::CapState;
using timeline::Counters;
using timeline::DeviceState;
using timeline::Reading;

/// Pieces of ranks, which may differ in length, one behind the other on rank 0.
template <class T>
std::vector<T> gather_pieces(const mpi::Communicator& comm, std::span<const T> mine) {
  const auto sizes = comm.all_gather(static_cast<std::int64_t>(mine.size()));
  std::size_t total = 0;
  for (const auto size : sizes) {
    total += static_cast<std::size_t>(size);
  }
  std::vector<T> all(comm.is_root() ? total : 0);
  comm.gather(mine, std::span<T>(all));
  return all;
}

/// Columns of all ranks, [devices][columns]. The number of columns is that of any rank with rows.
template <class T>
Matrix<T> gather_rows(const mpi::Communicator& comm, const Matrix<T>& mine) {
  std::int64_t columns = mine.size() > 0 ? static_cast<std::int64_t>(mine.extent(1)) : 0;
  comm.all_reduce_max(std::span(&columns, 1));
  const auto all = gather_pieces(comm, mine.flat());
  if (all.empty()) {
    return {};
  }
  const auto width = static_cast<std::size_t>(columns);
  Matrix<T> rows({all.size() / width, width});
  std::ranges::copy(all, rows.flat().begin());
  return rows;
}

/// One field of each of `items`, gathered.
template <class T, class Item, class Member>
std::vector<T> gather_field(const mpi::Communicator& comm, const std::vector<Item>& items,
                            Member member) {
  std::vector<T> mine;
  mine.reserve(items.size());
  for (const auto& item : items) {
    mine.push_back(static_cast<T>(item.*member));
  }
  return gather_pieces(comm, std::span<const T>(mine));
}

std::vector<std::vector<Reading>> gather_series(const mpi::Communicator& comm,
                                                const std::vector<std::vector<Reading>>& mine) {
  std::vector<std::int64_t> lengths;
  std::vector<Reading> readings;
  for (const auto& series : mine) {
    lengths.push_back(static_cast<std::int64_t>(series.size()));
    readings.insert(readings.end(), series.begin(), series.end());
  }
  const auto all_lengths = gather_pieces(comm, std::span<const std::int64_t>(lengths));
  const auto times = gather_field<std::int64_t>(comm, readings, &Reading::time_ns);
  const auto clocks = gather_field<double>(comm, readings, &Reading::sm_clock_mhz);
  const auto watts = gather_field<double>(comm, readings, &Reading::power_w);
  const auto degrees = gather_field<double>(comm, readings, &Reading::temperature_c);
  const auto reasons = gather_field<std::int64_t>(comm, readings, &Reading::throttle_reasons);
  std::vector<std::vector<Reading>> all(all_lengths.size());
  std::size_t next = 0;
  for (std::size_t device = 0; device < all.size(); ++device) {
    for (std::int64_t i = 0; i < all_lengths[device]; ++i, ++next) {
      all[device].push_back({times[next], clocks[next], watts[next], degrees[next],
                             static_cast<std::uint64_t>(reasons[next])});
    }
  }
  return all;
}

std::vector<Counters> gather_counted(const mpi::Communicator& comm,
                                     const std::vector<Counters>& mine) {
  const auto energy = gather_field<double>(comm, mine, &Counters::energy_mj);
  const auto cap = gather_field<double>(comm, mine, &Counters::sw_power_cap_ns);
  const auto sw = gather_field<double>(comm, mine, &Counters::sw_thermal_ns);
  const auto hw = gather_field<double>(comm, mine, &Counters::hw_thermal_ns);
  std::vector<Counters> all;
  for (std::size_t device = 0; device < energy.size(); ++device) {
    all.push_back({energy[device], cap[device], sw[device], hw[device]});
  }
  return all;
}

/// Series of unequal length side by side, [devices][longest], the shorter ones padded with
/// `missing`.
template <class T, class Member>
void put_series(const hdf5::Group& group, const std::string& name,
                const std::vector<std::vector<Reading>>& series, Member member, T missing,
                const char* unit) {
  std::size_t longest = 0;
  for (const auto& readings : series) {
    longest = std::max(longest, readings.size());
  }
  Matrix<T> table({series.size(), longest}, missing);
  for (std::size_t device = 0; device < series.size(); ++device) {
    for (std::size_t i = 0; i < series[device].size(); ++i) {
      table(device, i) = static_cast<T>(series[device][i].*member);
    }
  }
  put(group, name, table, unit);
}

void write_series(const hdf5::Group& telemetry, const std::vector<std::vector<Reading>>& series) {
  const auto group = telemetry.create_group("series");
  std::vector<std::int32_t> lengths;
  lengths.reserve(series.size());
  for (const auto& readings : series) {
    lengths.push_back(static_cast<std::int32_t>(readings.size()));
  }
  put(group, "readings", lengths, "1");
  put_series<std::int64_t>(group, "time_ns", series, &Reading::time_ns, 0, "ns");
  put_series(group, "sm_clock_mhz", series, &Reading::sm_clock_mhz, timeline::kUnknown, "MHz");
  put_series(group, "power_w", series, &Reading::power_w, timeline::kUnknown, "W");
  put_series(group, "temperature_c", series, &Reading::temperature_c, timeline::kUnknown, "degC");
  put_series<std::uint32_t>(group, "throttle_reasons", series, &Reading::throttle_reasons, 0,
                            "bitmask");
}

void write_caps(const hdf5::Group& group, const std::vector<DeviceState>& devices) {
  std::vector<CapState> caps;
  caps.reserve(devices.size());
  for (const auto& device : devices) {
    caps.push_back(device.cap);
  }
  put_column<double>(group, "requested_cap_w", caps, &CapState::requested_w, "W");
  put_column<double>(group, "enforced_cap_w", caps, &CapState::enforced_w, "W");
  put_column<double>(group, "default_cap_w", caps, &CapState::default_w, "W");
  put_column<double>(group, "min_cap_w", caps, &CapState::min_w, "W");
  put_column<double>(group, "max_cap_w", caps, &CapState::max_w, "W");
}

}  // namespace

timeline::Telemetry gather_telemetry(const mpi::Communicator& comm,
                                     const timeline::Telemetry& mine) {
  timeline::Telemetry all;
  all.series = gather_series(comm, mine.series);
  all.step_sm_clock_mhz = gather_rows(comm, mine.step_sm_clock_mhz);
  all.step_temperature_c = gather_rows(comm, mine.step_temperature_c);
  all.step_throttle_reasons = gather_rows(comm, mine.step_throttle_reasons);
  all.counted = gather_counted(comm, mine.counted);
  all.polling_s = mine.polling_s;
  return all;
}

void write_telemetry(const hdf5::Group& phase, const timeline::FleetState& state,
                     const timeline::Telemetry& telemetry) {
  const auto group = phase.create_group("telemetry");
  group.set_attribute("caps", state.caps);
  group.set_attribute("sensors", state.sensors);
  group.set_attribute("cap_changes", fmt::format("{}", fmt::join(state.cap_changes, "; ")));
  group.set_attribute("heat_s", state.heat_s);
  group.set_attribute("window_s", state.window_s);
  write_caps(group, state.devices);
  put_column<double>(group, "sm_clock_mhz", state.devices, &DeviceState::sm_clock_mhz, "MHz");
  put_column<double>(group, "power_w", state.devices, &DeviceState::power_w, "W");
  put_column<double>(group, "temperature_c", state.devices, &DeviceState::temperature_c, "degC");
  put_column<std::uint64_t>(group, "throttle_reasons", state.devices,
                            &DeviceState::throttle_reasons, "bitmask");
  put_column<std::uint8_t>(group, "steady", state.devices, &DeviceState::steady, "bool");
  put_column<double>(group, "slope_c_min", state.devices, &DeviceState::slope_c_min, "degC/min");
  if (!telemetry.counted.empty()) {
    const auto& counted = telemetry.counted;
    put_column<double>(group, "energy_mj", counted, &Counters::energy_mj, "mJ");
    put_column<double>(group, "sw_power_cap_ns", counted, &Counters::sw_power_cap_ns, "ns");
    put_column<double>(group, "sw_thermal_ns", counted, &Counters::sw_thermal_ns, "ns");
    put_column<double>(group, "hw_thermal_ns", counted, &Counters::hw_thermal_ns, "ns");
  }
  if (telemetry.step_sm_clock_mhz.size() > 0) {
    put(group, "step_sm_clock_mhz", telemetry.step_sm_clock_mhz, "MHz");
    put(group, "step_temperature_c", telemetry.step_temperature_c, "degC");
    put(group, "step_throttle_reasons", telemetry.step_throttle_reasons, "bitmask");
  }
  if (!telemetry.series.empty()) {
    write_series(group, telemetry.series);
  }
}

}  // namespace moevar::record
