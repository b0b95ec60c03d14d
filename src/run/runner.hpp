#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "record/manifest.hpp"
#include "record/summary.hpp"
#include "run/backend.hpp"
#include "run/routing_source.hpp"
#include "study/parse.hpp"
#include "study/plan.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// What a user watches; called on rank 0 alone.
class Observer {
 public:
  virtual ~Observer() = default;
  /// The run goes on with an earlier one's folder, where `done` of the plan's phases are.
  virtual void resumed(std::size_t done) = 0;
  /// What is not as it was in the session that the run goes on with, or repeats; a line each.
  virtual void changed(std::span<const std::string> changes) = 0;
  /// Why an earlier run's speed models are not taken.
  virtual void measured_anew(const std::string& why) = 0;
  virtual void planned(std::span<const study::PhaseSpec> plan) = 0;
  virtual void phase_begins(const study::PhaseSpec& phase) = 0;
  virtual void phase_done(const study::PhaseSpec& phase) = 0;
};

/// What the study's device kind comes to: "auto" is "model" until real GPUs have been run on.
study::DeviceKind resolve_device(const study::ParsedStudy& parsed);

/// Throws EnvironmentError that names file, line and key where the study's devices cannot run here.
void check_devices(const study::ParsedStudy& parsed);

/// Checks what parse() cannot know: policies, presets, caps, sizes. Pure: a study may be checked,
/// and planned, where it cannot run. Throws InputError that names file, line and key.
void check_study(const study::ParsedStudy& parsed);

/// Checks what is known once the routing is: `study` has the routing's layers. Throws InputError.
void check_routing(const study::Study& study, const Segments& segments);

/// The devices of a fleet that a rank drives: blocks of modelled ones, one real one each.
DeviceRange devices_of_rank(study::DeviceKind kind, const study::Fleet& fleet,
                            const mpi::Communicator& comm, int devices);

/// The machines for a phase's fleet. Collective.
std::unique_ptr<Backend> make_backend(const mpi::Communicator& comm, const study::Study& study,
                                      study::DeviceKind kind, const study::PhaseSpec& phase);

/// Where a run goes and what its manifest says beside the study.
struct RunOptions {
  std::filesystem::path directory;
  std::string version;          ///< moevar's
  record::Facts program = {};   ///< what is known of the build
  std::string study_text = {};  ///< as given
  std::vector<std::string> overrides = {};
  /// Goes on with the run that `directory` holds at its first phase that is not whole; where it
  /// holds none, a run begins there. Else `directory` must not hold one.
  bool resume = false;
  /// The signal that asks for an end, 0: none; not the same on every rank. The run then ends
  /// between two phases, with SharedError of status `interrupted`.
  std::function<int()> stop_requested = [] { return 0; };
  /// The run that this one repeats; the files that it read must be what they were.
  std::optional<record::Manifest> repeats = {};
};

/// Runs a study from its plan to study.h5 and summary.json. Collective; every rank gets the
/// summary. Everything that can be checked is checked before the directory is touched. Throws what
/// its parts throw, on every rank alike wherever the cause is not one rank's own.
record::Summary run_study(const mpi::Communicator& comm, const study::ParsedStudy& parsed,
                          const RunOptions& options, Observer& observer);

}  // namespace moevar::run
