#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/identity.hpp"
#include "record/record.hpp"
#include "system/hdf5.hpp"
#include "system/mpi.hpp"

/// The parts of study.h5 that hold numbers. results/README.md says every field.
namespace moevar::record {

inline constexpr auto kSpeedModel = "speed_model";

/// The name of a phase's file and group.
std::string phase_name(int index);

/// Writes one phase as a file of its own, with the groups /phase (what it measured) and /timing
/// (what differs between equal runs), and closes it. Collective; every rank throws when one does,
/// and then a file that nobody can read may be left.
/// Speed models that another phase holds are a link to that phase's file, in the same folder.
void write_phase_file(const mpi::Communicator& comm, const std::filesystem::path& path,
                      const PhaseRecord& phase, bool with_timelines);

/// Writes the group /fleet. One rank calls it.
void write_fleet(const hdf5::Location& root, const std::vector<DeviceIdentity>& fleet);

}  // namespace moevar::record
