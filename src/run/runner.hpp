#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

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
  virtual void planned(std::span<const study::PhaseSpec> plan) = 0;
  virtual void phase_begins(const study::PhaseSpec& phase) = 0;
  virtual void phase_done(const study::PhaseSpec& phase) = 0;
};

/// What the study's device kind comes to on this machine: "auto" is "model" until real GPUs can be
/// run. Throws EnvironmentError for a kind that cannot run here.
study::DeviceKind resolve_device(const study::ParsedStudy& parsed);

/// Checks what parse() cannot know: policies, presets, caps, sizes. Pure but for resolve_device.
/// Throws InputError that names file, line and key.
void check_study(const study::ParsedStudy& parsed);

/// Checks what is known once the routing is: `study` has the routing's layers. Throws InputError.
void check_routing(const study::Study& study, const Segments& segments);

/// The machines for a phase's fleet. Collective.
std::unique_ptr<Backend> make_backend(const mpi::Communicator& comm, const study::Study& study,
                                      study::DeviceKind kind, const study::PhaseSpec& phase);

/// Runs a study from its plan to study.h5 and summary.json in `directory`. Collective; every rank
/// gets the summary. Everything that can be checked is checked before `directory` is touched.
/// Throws what its parts throw, on every rank alike wherever the cause is not one rank's own.
record::Summary run_study(const mpi::Communicator& comm, const study::ParsedStudy& parsed,
                          const std::filesystem::path& directory, const std::string& version,
                          Observer& observer);

}  // namespace moevar::run
