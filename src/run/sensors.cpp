#include "run/sensors.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "burn/burn.hpp"
#include "conditions/nvml_plant.hpp"
#include "system/nvml.hpp"

namespace moevar::run {

conditions::HeatOptions heat_options(const study::Study& study) {
  return {.window_s = study.conditions.steady_window_s, .limit_s = study.conditions.heat_limit_s};
}

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
  // what cannot be had is refused before anything is written
  mpi::on_all(comm, [&] {
    for (const double cap : study.conditions.power_cap_w) {
      conditions::require_in_range(uuids[place], cap);
    }
  });
  const auto plant = std::make_shared<conditions::NvmlPlant>(
      comm, devices, uuids[place], study.conditions.caps, study.name,
      [](double seconds) { (void)burn::burn_cpu(seconds); });
  if (study.conditions.caps == study::CapMode::verify) {
    for (const double cap : study.conditions.power_cap_w) {
      plant->set_cap(cap);
    }
  }
  sensors.plant = plant;
  sensors.caps = to_string(study.conditions.caps);
  sensors.source = "stand-in";
  return sensors;
}

}  // namespace moevar::run
