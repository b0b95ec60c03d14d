#include "record/phase_file.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <string>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/tensor.hpp"
#include "record/put.hpp"
#include "record/seal.hpp"
#include "record/speed_group.hpp"
#include "record/telemetry_file.hpp"
#include "system/files.hpp"

namespace moevar::record {

namespace {

using hdf5::Shape;

void put_names(const hdf5::Location& where, const std::string& name,
               const std::vector<DeviceIdentity>& fleet, std::string DeviceIdentity::*member) {
  std::vector<std::string> column;
  column.reserve(fleet.size());
  for (const auto& device : fleet) {
    column.push_back(device.*member);
  }
  put_texts(where, name, column);
}

void write_factors(const hdf5::Group& group, const PhaseRecord& phase) {
  const auto& spec = phase.spec;
  const auto integer = [&group](const char* name, std::int64_t value) {
    group.set_attribute(name, value);
  };
  integer("index", spec.index);
  integer("repeat", spec.repeat);
  integer("devices", spec.devices);
  group.set_attribute(
      "power_cap_w", spec.condition.power_cap_w.value_or(std::numeric_limits<double>::quiet_NaN()));
  group.set_attribute("heat", phase.heat);
  group.set_attribute("workload", phase.workload);
  group.set_attribute("policy", spec.policy);
  integer("first_step", phase.first_step);
  integer("tokens_per_step", phase.tokens_per_step);
  group.set_attribute("timer", phase.timer);
  group.set_attribute("sync", phase.sync);
  group.set_attribute("summary",
                      "none over steps and layers: every layer call is stored; layer/ holds sums "
                      "and extremes over devices");
  group.set_attribute("quantile", "nearest_rank");
  integer("clock_residual_ns", phase.clock_residual_ns);
  group.set_attribute("reference_error", phase.reference_error);
  integer("clock_step_ns", phase.clock_step_ns);
  group.set_attribute("stamping_share", phase.stamping_share);
  group.set_attribute("scaling", study::to_string(spec.scaling));
  integer("experts", spec.experts);
  integer("even_load", spec.even_load ? 1 : 0);
  integer("equal_fleet", spec.equal_fleet ? 1 : 0);
  group.set_attribute("stop_reason", phase.stop_reason);
  group.set_attribute("overlap", phase.cell.overlap);
  integer("moved_experts", phase.moved_experts);
  integer("moved_bytes", phase.moved_bytes);
  if (phase.cell.serving) {
    group.set_attribute("rate", phase.cell.serving->rate);
  }
}

void write_totals(const hdf5::Group& phase, const timeline::LayerTotals& totals) {
  const auto group = phase.create_group("layer");
  put(group, "layer_ns", totals.layer_ns, "ns");
  put(group, "busy_sum_ns", totals.busy_sum_ns, "ns");
  put(group, "wait_sum_ns", totals.wait_sum_ns, "ns");
  put(group, "expert_max_ns", totals.expert_max_ns, "ns");
  put(group, "expert_min_ns", totals.expert_min_ns, "ns");
  put(group, "tokens_max", totals.tokens_max, "tokens");
  put(group, "tokens_sum", totals.tokens_sum, "tokens");
}

void write_placement(const hdf5::Group& phase, const PhaseRecord& record) {
  const auto& placement = record.placement;
  const auto group = phase.create_group("placement");
  group.set_attribute("solved_because", record.solved_because);
  group.set_attribute("per_step", std::int64_t{record.per_step ? 1 : 0});
  group.set_attribute("slots_per_device", std::int64_t{placement.slots_per_device});
  put(group, "physical_to_logical_map", placement.expert_of_slot, "expert");
  put(group, "slot_share", placement.share_of_slot, "1");
  put(group, "predicted_us", placement.predicted_us, "us");
  put(group, "lower_bound_us", placement.lower_bound_us, "us");
}

void write_speeds_of(const hdf5::Group& phase, const PhaseRecord& record) {
  if (record.speeds_from) {
    phase.link_external(kSpeedModel, phase_name(*record.speeds_from) + ".h5",
                        std::string("/phase/") + kSpeedModel);
  } else {
    write_speeds(phase.create_group(kSpeedModel), record.speeds);
  }
}

void write_device_totals(const hdf5::Group& phase, const timeline::DeviceTotals& totals) {
  const auto group = phase.create_group("device");
  put(group, "tokens_sum", totals.tokens_sum, "tokens");
  put(group, "busy_sum_ns", totals.busy_sum_ns, "ns");
  put(group, "expert_sum_ns", totals.expert_sum_ns, "ns");
  put(group, "wait_sum_ns", totals.wait_sum_ns, "ns");
  put(group, "last_calls", totals.last_calls, "1");
}

void write_timing(const hdf5::File& file, const PhaseRecord& phase) {
  const auto group = file.create_group("timing");
  group.set_attribute("solve_ms", phase.placement.solve_ms);
  group.set_attribute("migrate_ms", phase.migrate_ms);
  group.set_attribute("polling_s", phase.telemetry.polling_s);
  put_column<std::int32_t>(group, "rank", phase.fleet, &DeviceIdentity::rank, "rank");
}

void write_resume(const hdf5::File& file, const PhaseRecord& phase) {
  const auto group = file.create_group(kResume);
  group.set_attribute("cell", to_json_text(phase.cell));
  group.set_attribute("speeds_from", std::int64_t{phase.speeds_from.value_or(phase.spec.index)});
  if (!phase.to_resume.empty()) {
    const std::vector<std::uint8_t> bytes(phase.to_resume.begin(), phase.to_resume.end());
    put(group, "state", bytes, "byte");
  }
}

/// What other ranks know, gathered on rank 0.
struct Gathered {
  timeline::Telemetry telemetry;
  timeline::DeviceTotals device;
};

Gathered gather(const mpi::Communicator& comm, const PhaseRecord& phase) {
  Gathered all{gather_telemetry(comm, phase.telemetry), {}};
  const auto mine =
      phase.device_totals ? *phase.device_totals : timeline::totals_by_device(phase.mine);
  for (auto part : timeline::DeviceTotals::kParts) {
    (all.device.*part).resize(comm.is_root() ? phase.fleet.size() : 0);
    comm.gather(std::span<const std::int64_t>(mine.*part),
                std::span<std::int64_t>(all.device.*part));
  }
  return all;
}

/// All but the [devices, steps, layers] arrays.
void write_rest(const hdf5::File& file, const hdf5::Group& group, const PhaseRecord& phase,
                const Gathered& gathered) {
  write_factors(group, phase);
  put_column<std::int32_t>(group, "devices", phase.fleet, &DeviceIdentity::device, "1");
  write_totals(group, phase.totals);
  write_device_totals(group, gathered.device);
  write_placement(group, phase);
  write_speeds_of(group, phase);
  if (phase.serving != nullptr) {
    write_serving(group, *phase.serving);
  }
  write_telemetry(group, phase.state, gathered.telemetry);
  write_timing(file, phase);
  write_resume(file, phase);
}

/// Calls `work` for each [devices, steps, layers] array of a timeline.
template <class Work>
void for_each_field(const timeline::Timeline& timeline, const Work& work) {
  work("tokens", "tokens", timeline.tokens);
  work("dispatch_ns", "ns", timeline.dispatch_ns);
  work("expert_ns", "ns", timeline.expert_ns);
  work("arrival_ns", "ns", timeline.arrival_ns);
  work("wait_ns", "ns", timeline.wait_ns);
  work("combine_ns", "ns", timeline.combine_ns);
}

Shape timeline_shape(const PhaseRecord& phase) {
  return {phase.fleet.size(), phase.totals.layer_ns.extent(0), phase.totals.layer_ns.extent(1)};
}

/// Rank 0 gathers one array at a time and writes it.
void write_gathered(const mpi::Communicator& comm, const std::filesystem::path& path,
                    const PhaseRecord& phase, const Gathered& gathered, bool with_timelines) {
  std::optional<hdf5::File> file;
  std::optional<hdf5::Group> group;
  mpi::on_root(comm, [&] {
    file.emplace(hdf5::File::create(path, kSealBytes));
    group.emplace(file->create_group("phase"));
    write_rest(*file, *group, phase, gathered);
  });
  if (with_timelines) {
    const auto shape = timeline_shape(phase);
    for_each_field(phase.mine,
                   [&]<class T>(const char* name, const char* unit, const Tensor<T, 3>& mine) {
                     std::vector<T> all(comm.is_root() ? shape[0] * shape[1] * shape[2] : 0);
                     comm.gather(mine.flat(), std::span<T>(all));
                     mpi::on_root(comm, [&] { put<T>(*group, name, shape, all, unit); });
                   });
  }
  mpi::on_root(comm, [&] {
    group->close();
    file->close();
  });
}

/// All ranks write their devices' rows through MPI-IO; then rank 0 alone adds the rest. Each
/// collective step is agreed on before the next: a rank that fails must not leave others waiting.
void write_shared(const mpi::Communicator& comm, const std::filesystem::path& path,
                  const PhaseRecord& phase, const Gathered& gathered) {
  std::optional<hdf5::File> file;
  std::optional<hdf5::Group> group;
  mpi::on_all(comm, [&] {
    file.emplace(hdf5::File::create_shared(path, comm.raw(), kSealBytes));
    group.emplace(file->create_group("phase"));
  });
  const auto shape = timeline_shape(phase);
  const Shape offset{static_cast<hsize_t>(phase.range.begin), 0, 0};
  const Shape count{static_cast<hsize_t>(phase.range.size()), shape[1], shape[2]};
  for_each_field(
      phase.mine, [&]<class T>(const char* name, const char* unit, const Tensor<T, 3>& mine) {
        std::optional<hdf5::Dataset> dataset;
        mpi::on_all(comm, [&] {
          dataset.emplace(group->create_dataset<T>(name, shape, layout_of(shape, sizeof(T))));
          dataset->set_attribute("unit", unit);
        });
        mpi::on_all(
            comm, [&] { dataset->write(mine.flat(), offset, count, hdf5::Transfer::collective); });
        mpi::on_all(comm, [&] { dataset->close(); });
      });
  mpi::on_all(comm, [&] {
    group->close();
    file->close();
  });
  mpi::on_root(comm, [&] {
    auto rest = hdf5::File::open_to_write(path);
    auto existing = rest.group("phase");
    write_rest(rest, existing, phase, gathered);
    existing.close();
    rest.close();
  });
}

/// The ranks' devices cover the fleet in rank order, and every part has the shape it must have.
void check_shapes(const mpi::Communicator& comm, const PhaseRecord& phase, bool with_timelines) {
  const auto sizes = comm.all_gather(std::int64_t{phase.range.size()});
  mpi::on_all(comm, [&] {
    const auto devices = phase.fleet.size();
    if (phase.spec.devices != static_cast<int>(devices) || phase.state.devices.size() != devices ||
        phase.speeds.size() != devices) {
      throw CheckError(fmt::format(
          "phase {} of {} devices came with {} identities, {} states and {} speed models",
          phase.spec.index, phase.spec.devices, devices, phase.state.devices.size(),
          phase.speeds.size()));
    }
    std::int64_t begin = 0;
    for (int rank = 0; rank < comm.rank(); ++rank) {
      begin += sizes[static_cast<std::size_t>(rank)];
    }
    std::int64_t total = 0;
    for (const auto size : sizes) {
      total += size;
    }
    if (total != static_cast<std::int64_t>(devices) ||
        (phase.range.size() > 0 && phase.range.begin != begin)) {
      throw CheckError(fmt::format("phase {}: the devices of {} ranks do not make up the fleet",
                                   phase.spec.index, comm.size()));
    }
    const auto shape = timeline_shape(phase);
    if (with_timelines && phase.range.size() > 0 &&
        phase.mine.tokens.shape() !=
            std::array<std::size_t, 3>{static_cast<std::size_t>(phase.range.size()), shape[1],
                                       shape[2]}) {
      throw CheckError(fmt::format("phase {}: a rank's timelines are not [{}, {}, {}]",
                                   phase.spec.index, phase.range.size(), shape[1], shape[2]));
    }
  });
}

/// No phase file is larger: its data uncompressed, and room for its structure.
std::uintmax_t most_bytes(const PhaseRecord& phase, bool with_timelines) {
  constexpr std::uintmax_t kStructure = std::uintmax_t{1} << 20U;
  constexpr std::uintmax_t kTimelineBytes = sizeof(std::uint32_t) + 5 * sizeof(Nanoseconds);
  constexpr std::uintmax_t kTotalsBytes = 7 * sizeof(Nanoseconds);
  constexpr std::uintmax_t kSlotBytes = sizeof(std::int32_t) + sizeof(double);
  constexpr std::uintmax_t kDeviceBytes = 1024;
  constexpr std::uintmax_t kStepBytes = 2 * sizeof(double) + sizeof(std::uint32_t);
  const auto shape = timeline_shape(phase);
  const auto calls = shape[1] * shape[2];
  constexpr std::uintmax_t kRowBytes = 64;  // of a request, or a step of serving
  const auto rows =
      phase.serving == nullptr ? 0 : phase.serving->requests.size() + phase.serving->steps.size();
  return kStructure + phase.to_resume.size() + rows * kRowBytes +
         (with_timelines ? shape[0] * calls * kTimelineBytes : 0) + calls * kTotalsBytes +
         shape[0] * shape[1] * kStepBytes + phase.placement.expert_of_slot.size() * kSlotBytes +
         shape[0] * kDeviceBytes;
}

}  // namespace

std::string phase_name(int index) { return fmt::format("{:04}", index); }

void write_phase_file(const mpi::Communicator& comm, const std::filesystem::path& path,
                      const PhaseRecord& phase, bool with_timelines) {
  check_shapes(comm, phase, with_timelines);
  if (hdf5::parallel()) {
    // a disk that fills up amid a collective write leaves ranks waiting in MPI-IO for good
    mpi::on_root(comm, [&] { files::require_room(path, most_bytes(phase, with_timelines)); });
  }
  const auto gathered = gather(comm, phase);
  if (with_timelines && hdf5::parallel()) {
    write_shared(comm, path, phase, gathered);
  } else {
    write_gathered(comm, path, phase, gathered, with_timelines);
  }
}

void write_fleet(const hdf5::Location& root, const std::vector<DeviceIdentity>& fleet) {
  auto group = root.create_group("fleet");
  put_column<std::int32_t>(group, "device", fleet, &DeviceIdentity::device, "1");
  put_names(group, "kind", fleet, &DeviceIdentity::kind);
  put_names(group, "uuid", fleet, &DeviceIdentity::uuid);
  put_names(group, "name", fleet, &DeviceIdentity::name);
  put_names(group, "host", fleet, &DeviceIdentity::host);
  put_column<std::int32_t>(group, "node", fleet, &DeviceIdentity::node, "1");
  put_column<std::int32_t>(group, "slot", fleet, &DeviceIdentity::slot, "1");
  group.close();
}

std::vector<DeviceIdentity> read_fleet(const hdf5::Location& root) {
  const auto group = root.group("fleet");
  const auto rows = group.dataset("device").shape();
  constexpr std::size_t kMost = std::size_t{1} << 24U;
  if (rows.size() != 1 || rows[0] > kMost) {
    throw InputError("fleet: no table of devices");
  }
  std::vector<DeviceIdentity> fleet(rows[0]);
  const auto column = [&](const char* name) {
    auto dataset = group.dataset(name);
    if (dataset.shape() != rows) {
      throw InputError(fmt::format("fleet/{}: not a value for each device", name));
    }
    return dataset;
  };
  const auto read_integers = [&](const char* name, int DeviceIdentity::*member) {
    const auto values = column(name).read<std::int32_t>();
    for (std::size_t i = 0; i < fleet.size(); ++i) {
      fleet[i].*member = values[i];
    }
  };
  const auto read_texts = [&](const char* name, std::string DeviceIdentity::*member) {
    const auto values = column(name).read_texts();
    for (std::size_t i = 0; i < fleet.size() && i < values.size(); ++i) {
      fleet[i].*member = values[i];
    }
  };
  read_integers("device", &DeviceIdentity::device);
  read_texts("kind", &DeviceIdentity::kind);
  read_texts("uuid", &DeviceIdentity::uuid);
  read_texts("name", &DeviceIdentity::name);
  read_texts("host", &DeviceIdentity::host);
  read_integers("node", &DeviceIdentity::node);
  read_integers("slot", &DeviceIdentity::slot);
  return fleet;
}

}  // namespace moevar::record
