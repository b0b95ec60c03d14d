#include "record/recorded_run.hpp"

#include <algorithm>
#include <functional>
#include <span>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "record/phase_file.hpp"
#include "record/read_matrix.hpp"
#include "record/seal.hpp"
#include "record/speed_group.hpp"
#include "system/hdf5.hpp"
#include "system/whereabouts.hpp"

namespace moevar::record {

namespace {

namespace fs = std::filesystem;
using hdf5::Shape;

/// `work` with whatever it says of the file told as unusable input.
template <class Work>
auto reading(const fs::path& path, const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    throw InputError(fmt::format("{}: not as moevar writes it: {}", path.string(), error.what()));
  }
}

std::vector<double> read_row(const hdf5::Group& group, const std::string& name, std::size_t size) {
  const auto dataset = group.dataset(name);
  if (dataset.shape() != Shape{size}) {
    throw InputError(fmt::format("{} has another shape than its phase", name));
  }
  return dataset.read<double>();
}

bool is_cell_of(const CellSummary& cell, const study::PhaseSpec& spec) {
  return cell.phase == spec.index && cell.repeat == spec.repeat && cell.devices == spec.devices &&
         cell.power_cap_w == spec.condition.power_cap_w &&
         cell.heat == study::to_string(spec.condition.heat) && cell.policy == spec.policy &&
         cell.scaling == spec.scaling && cell.experts == spec.experts &&
         cell.even_load == spec.even_load && cell.equal_fleet == spec.equal_fleet;
}

}  // namespace

RecordedRun::RecordedRun(fs::path directory, const std::vector<study::PhaseSpec>& plan)
    : directory_(std::move(directory)) {
  for (const auto& spec : plan) {
    const auto path = path_of(phases_.size());
    whereabouts::enter_phase(spec.index);
    if (!is_whole(path)) {
      std::error_code ignored;
      if (fs::exists(path, ignored)) {
        damaged_ = path;
      }
      return;
    }
    phases_.push_back(read(spec));
  }
}

fs::path RecordedRun::path_of(std::size_t phase) const {
  return directory_ / "phases" / (phase_name(static_cast<int>(phase)) + ".h5");
}

RecordedRun::Phase RecordedRun::read(const study::PhaseSpec& spec) const {
  const auto path = path_of(phases_.size());
  return reading(path, [&] {
    const auto file = hdf5::File::open(path);
    const auto group = file.group(kResume);
    const auto from = group.attribute<std::int64_t>("speeds_from");
    Phase phase{cell_from_json(group.text_attribute("cell")), 0};
    if (from < 0 || static_cast<std::size_t>(from) > phases_.size()) {
      throw InputError("its speed models are of no earlier phase");
    }
    phase.speeds_from = static_cast<std::size_t>(from);
    if (!is_cell_of(phase.cell, spec)) {
      throw InputError(fmt::format(
          "it is not the phase that the study has here; the plan of this version is another one, "
          "so the study must begin anew in another folder"));
    }
    return phase;
  });
}

std::string RecordedRun::state(std::size_t phase) const {
  const auto path = path_of(phase);
  return reading(path, [&] {
    const auto file = hdf5::File::open(path);
    const auto group = file.group(kResume);
    if (!group.has("state")) {
      return std::string();
    }
    const auto dataset = group.dataset("state");
    if (dataset.shape().size() != 1 || dataset.shape()[0] > std::size_t{1} << 34U) {
      throw InputError("its state is no row of bytes");
    }
    const auto bytes = dataset.read<std::uint8_t>();
    return std::string(bytes.begin(), bytes.end());
  });
}

placement::SpeedModels RecordedRun::speeds(std::size_t phase) const {
  const auto path = path_of(speeds_from(phase));
  const auto devices = static_cast<std::size_t>(cell(phase).devices);
  return reading(path, [&] {
    const auto file = hdf5::File::open(path);
    return read_speeds(file.group("phase").group(kSpeedModel), devices);
  });
}

placement::Placement RecordedRun::placement(std::size_t phase) const {
  const auto path = path_of(phase);
  return reading(path, [&] {
    const auto& of = cell(phase);
    const auto file = hdf5::File::open(path);
    const auto group = file.group("phase").group("placement");
    placement::Placement placement;
    placement.policy = of.policy;
    placement.devices = of.devices;
    const auto width = group.attribute<std::int64_t>("slots_per_device");
    constexpr std::int64_t kMostSlots = std::int64_t{1} << 30U;
    if (of.devices < 1 || width < 1 || width > kMostSlots / of.devices) {
      throw InputError(fmt::format("{} slots on a device", width));
    }
    placement.slots_per_device = static_cast<int>(width);
    const auto slots = static_cast<std::size_t>(width * of.devices);
    placement.expert_of_slot =
        read_matrix<std::int32_t>(group, "physical_to_logical_map", 0, slots);
    const auto layers = placement.expert_of_slot.extent(0);
    placement.share_of_slot = read_matrix<double>(group, "slot_share", layers, slots);
    placement.predicted_us = read_row(group, "predicted_us", layers);
    placement.lower_bound_us = read_row(group, "lower_bound_us", layers);
    placement.solve_ms = of.solve_ms;
    placement::check_placement(placement, of.experts);
    return placement;
  });
}

std::vector<DeviceIdentity> RecordedRun::fleet() const {
  const auto path = directory_ / "phases" / "fleet.h5";
  if (!is_whole(path)) {
    throw InputError(fmt::format("{}: not whole; the run cannot go on from it", path.string()));
  }
  return reading(path, [&] { return read_fleet(hdf5::File::open(path)); });
}

}  // namespace moevar::record
