#pragma once

#include <vector>

#include "base/identity.hpp"

namespace moevar::run {

/// The devices of a fleet in which every GPU stands for as many as `sms` has parts, of so many
/// multiprocessors each; with none, the GPUs themselves. A part says in its name and its UUID that
/// it is one. `gpus` are one a rank, in rank order. Pure.
std::vector<DeviceIdentity> devices_of_gpus(const std::vector<DeviceIdentity>& gpus,
                                            const std::vector<int>& sms);

/// Ranks that own `devices` devices, so many lanes each. Throws InputError where that does not
/// come out even, EnvironmentError where there are fewer ranks.
int ranks_of_devices(int devices, int lanes, int ranks);

}  // namespace moevar::run
