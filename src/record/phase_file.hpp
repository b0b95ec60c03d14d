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
/// What a run needs to go on after a phase; not in a finished study.h5.
inline constexpr auto kResume = "resume";

/// The name of a phase's file and group.
std::string phase_name(int index);

/// Writes one phase as a file of its own, with the groups /phase (what it measured), /timing
/// (what differs between equal runs) and /resume (what RecordedRun reads), leaves room for its seal
/// and closes it. Collective; every rank throws when one does,
/// and then a file that nobody can read may be left.
/// Speed models that another phase holds are a link to that phase's file, in the same folder.
void write_phase_file(const mpi::Communicator& comm, const std::filesystem::path& path,
                      const PhaseRecord& phase, bool with_timelines);

/// Writes the group /fleet. One rank calls it.
void write_fleet(const hdf5::Location& root, const std::vector<DeviceIdentity>& fleet);
/// What write_fleet wrote, but for the ranks. Throws InputError where it is something else.
std::vector<DeviceIdentity> read_fleet(const hdf5::Location& root);

}  // namespace moevar::record
