#include "run/cuda_fleet.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::run {

std::vector<DeviceIdentity> devices_of_gpus(const std::vector<DeviceIdentity>& gpus,
                                            const std::vector<int>& sms) {
  if (sms.empty()) {
    return gpus;
  }
  std::vector<DeviceIdentity> devices;
  devices.reserve(gpus.size() * sms.size());
  for (const auto& gpu : gpus) {
    for (std::size_t lane = 0; lane < sms.size(); ++lane) {
      auto device = gpu;
      device.device = static_cast<DeviceId>(devices.size());
      device.uuid = fmt::format("{}:part{}", gpu.uuid, lane);
      device.name = fmt::format("{} (emulated: {} SMs of it)", gpu.name, sms[lane]);
      device.slot = gpu.slot * static_cast<int>(sms.size()) + static_cast<int>(lane);
      devices.push_back(std::move(device));
    }
  }
  return devices;
}

int ranks_of_devices(int devices, int lanes, int ranks) {
  if (devices % lanes != 0) {
    throw InputError(
        fmt::format("{} devices, and fleet.emulated_sms makes {} of every rank's GPU; a multiple "
                    "of that is right",
                    devices, lanes));
  }
  const int wanted = devices / lanes;
  if (wanted > ranks) {
    throw EnvironmentError(fmt::format(
        "study asks for {} cuda devices, started with {} rank{}; start it with mpirun -np {}",
        devices, ranks, ranks == 1 ? "" : "s", wanted));
  }
  return wanted;
}

}  // namespace moevar::run
