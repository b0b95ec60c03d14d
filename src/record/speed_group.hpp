#pragma once

#include <cstddef>

#include "placement/speed_model.hpp"
#include "system/hdf5.hpp"

/// The group speed_model of a phase. results/README.md says every field.
namespace moevar::record {

void write_speeds(const hdf5::Group& group, const placement::SpeedModels& speeds);
/// Those of `devices`. Throws InputError where the group is something else.
placement::SpeedModels read_speeds(const hdf5::Group& group, std::size_t devices);

}  // namespace moevar::record
