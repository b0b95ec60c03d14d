#pragma once

#include <list>
#include <map>
#include <memory>
#include <tuple>

#include "run/routing_source.hpp"
#include "study/plan.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"
#include "workload/loads.hpp"
#include "workload/routing.hpp"

namespace moevar::run {

/// Routing and loads of a study's phases. One per run, on every rank.
class LoadWindows {
 public:
  /// `comm` and `study` outlive the object; `study` has the routing's layers.
  LoadWindows(const mpi::Communicator& comm, const study::Study& study,
              const workload::Routing& routing, const Segments& segments)
      : comm_(comm), study_(study), own_(routing), segments_(segments) {}

  /// The study's own, or what it becomes with other experts or without skew. Valid until another
  /// one has been asked for.
  const workload::Routing& routing_of(const study::PhaseSpec& phase);
  /// The n-th kind of a study's requests: synthetic ones have experts of their own that are
  /// popular; recorded ones have one popularity for all. `kind` 0 is routing_of(phase).
  const workload::Routing& routing_of(const study::PhaseSpec& phase, int kind);

  /// The measured steps of a segment. The two windows of a repeat serve all its phases with the
  /// same fleet size and routing, and the second of them the next repeat, so those two are kept:
  /// valid until two others have been asked for. Collective.
  const workload::Loads& loads_of(const study::PhaseSpec& phase, int segment);

  /// Tokens of a step of a fleet.
  [[nodiscard]] std::int64_t tokens_of_step(int devices) const {
    return std::int64_t{study_.workload.tokens_per_device} * devices;
  }

 private:
  struct Window {
    int devices = 0;
    int experts = 0;
    bool even = false;
    int segment = -1;
    workload::Loads loads;
  };

  const mpi::Communicator& comm_;
  const study::Study& study_;
  const workload::Routing& own_;
  Segments segments_;
  std::unique_ptr<workload::Routing> other_;
  bool other_is_even_ = false;
  std::map<std::tuple<int, int, bool>, std::unique_ptr<workload::Routing>>
      kinds_;  ///< by kind, experts, evenness
  std::list<Window> windows_;
};

}  // namespace moevar::run
