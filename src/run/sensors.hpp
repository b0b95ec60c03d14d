#pragma once

#include <functional>
#include <memory>
#include <string>

#include "conditions/heat.hpp"
#include "conditions/plant.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// Where a fleet of real devices has its cap, heat and telemetry from.
struct Sensors {
  std::shared_ptr<conditions::Plant> plant;  ///< none: nothing is set, nothing is read
  std::string caps = "none";                 ///< timeline::FleetState's names
  std::string source = "none";
  conditions::HeatOptions heat;
  double telemetry_hz = 0.0;
};

/// The heat options that a study asks for.
conditions::HeatOptions heat_options(const study::Study& study);

/// Whether CPU cores stand in for GPUs, with their caps and heat: where MOEVAR_NVML names a
/// stand-in for NVML. Each rank then takes the GPU of its place on its node.
bool cpu_has_sensors();

/// The sensors of a fleet of `devices` CPU cores, the first ranks of `comm`, which outlives them.
/// Collective. Throws EnvironmentError where the stand-in has fewer GPUs than a node has ranks,
/// where caps to be verified are not enforced, and what taking over the caps throws; InputError for
/// a cap that the GPUs do not accept.
Sensors cpu_sensors(const mpi::Communicator& comm, const study::Study& study, int devices);

/// The sensors of a fleet of GPUs, one a rank, the first ranks of `comm`, which outlives them:
/// NVML's. `gpu_uuid`: this rank's; `burn` runs a dense GEMM on it for so many seconds. Nothing
/// where there is no NVML on some rank, or ranks share GPUs (`alone` is false). Collective. Throws
/// as cpu_sensors() does.
Sensors gpu_sensors(const mpi::Communicator& comm, const study::Study& study, int devices,
                    const std::string& gpu_uuid, bool alone,
                    std::function<void(double seconds)> burn);

}  // namespace moevar::run
