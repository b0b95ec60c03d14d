#include "run/sensors.hpp"

#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "burn/burn.hpp"
#include "conditions/nvml_plant.hpp"
#include "system/nvml.hpp"

namespace moevar::run {

conditions::HeatOptions heat_options(const study::Study& study) {
  return {.window_s = study.conditions.steady_window_s, .limit_s = study.conditions.heat_limit_s};
}

namespace {

/// The plant of a fleet with a GPU for every rank. What cannot be had is refused before anything is
/// written.
void take_nvml(const mpi::Communicator& comm, const study::Study& study, int devices,
               const std::string& uuid, std::function<void(double)> burn, Sensors& sensors) {
  mpi::on_all(comm, [&] {
    for (const double cap : study.conditions.power_cap_w) {
      conditions::require_in_range(uuid, cap);
    }
  });
  const auto plant = std::make_shared<conditions::NvmlPlant>(
      comm, devices, uuid, study.conditions.caps, study.name, std::move(burn));
  if (study.conditions.caps == study::CapMode::verify) {
    for (const double cap : study.conditions.power_cap_w) {
      plant->set_cap(cap);
    }
  }
  sensors.plant = plant;
  sensors.caps = to_string(study.conditions.caps);
}

}  // namespace

bool cpu_has_sensors() { return !nvml::stand_in_uuids().empty(); }

Sensors cpu_sensors(const mpi::Communicator& comm, const study::Study& study, int devices) {
  Sensors sensors;
  sensors.heat = heat_options(study);
  sensors.telemetry_hz = study.record.telemetry_hz;
  if (!cpu_has_sensors()) {
    return sensors;
  }
  const auto uuids = nvml::stand_in_uuids();
  const auto place = static_cast<std::size_t>(comm.split_by_node().rank());
  mpi::on_all(comm, [&] {
    if (place >= uuids.size()) {
      throw EnvironmentError(fmt::format(
          "rank {} is number {} of its node, and MOEVAR_NVML stands for {} GPUs; fewer ranks a "
          "node, or a larger stand-in",
          comm.rank(), place + 1, uuids.size()));
    }
  });
  // BLAS takes its memory at its first call, and spins where there is none: not under caps
  (void)burn::burn_cpu(0.0);
  take_nvml(
      comm, study, devices, uuids[place], [](double seconds) { (void)burn::burn_cpu(seconds); },
      sensors);
  sensors.source = "stand-in";
  return sensors;
}

Sensors gpu_sensors(const mpi::Communicator& comm, const study::Study& study, int devices,
                    const std::string& gpu_uuid, bool alone,
                    std::function<void(double seconds)> burn) {
  Sensors sensors;
  sensors.heat = heat_options(study);
  sensors.telemetry_hz = study.record.telemetry_hz;
  std::int64_t missing = alone && nvml::available() ? 0 : 1;
  comm.all_reduce_max(std::span(&missing, 1));
  if (missing == 0) {
    take_nvml(comm, study, devices, gpu_uuid, std::move(burn), sensors);
    sensors.source = "nvml";
  }
  return sensors;
}

}  // namespace moevar::run
