#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/identity.hpp"
#include "record/manifest.hpp"
#include "record/recorded_run.hpp"
#include "run/runner.hpp"
#include "study/plan.hpp"
#include "study/study.hpp"
#include "system/files.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// What a run finds in its folder. On rank 0 alone but for the first two.
struct Resumption {
  bool resumes = false;                     ///< goes on with what is there
  bool complete = false;                    ///< of which nothing is left to be done
  record::Manifest manifest;                ///< with this session
  std::unique_ptr<files::FolderLock> lock;  ///< held from before anything was looked at
  std::optional<record::RecordedRun> recorded;
  std::vector<std::string> changes;  ///< since the last session, a line each
};

/// What the run that is to begin must be equal to.
struct RunIdentity {
  std::string study_path;
  const study::Study& study;
  std::span<const study::PhaseSpec> plan;
  const std::vector<DeviceIdentity>& fleet;  ///< the largest; real devices must be the same ones
};

/// Looks whether the run can begin in its folder, or go on there. Collective. Throws InputError
/// where the folder holds a run and may not be gone on with, or one of another study;
/// EnvironmentError where real devices are not those that it began with.
Resumption look_into(const mpi::Communicator& comm, const RunOptions& options,
                     const RunIdentity& identity);

}  // namespace moevar::run
