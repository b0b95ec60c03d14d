#pragma once

#include <memory>

#include "study/parse.hpp"
#include "system/mpi.hpp"
#include "workload/routing.hpp"

namespace moevar::run {

/// The routing that a study asks for, from workload.path where it is recorded. Not collective.
/// Throws InputError that names the file and the key.
std::unique_ptr<workload::Routing> load_routing(const study::ParsedStudy& parsed);

/// The same on every rank. Rank 0 alone reads workload.path; its text is broadcast, so that no
/// other node needs the file. Collective; every rank throws what rank 0 throws.
std::unique_ptr<workload::Routing> share_routing(const mpi::Communicator& comm,
                                                 const study::ParsedStudy& parsed);

/// Synthetic routing over `experts` experts in the study's model: as popular as those of a layer of
/// study.model.experts, or all alike. Its random numbers are those of the study's own routing, so
/// that the steps are the same but for what popularity makes of them. `kind` > 0: as another kind
/// of requests, to which other experts are popular.
std::unique_ptr<workload::Routing> synthetic_routing(const study::Study& study, int experts,
                                                     bool even_load, int kind = 0);

/// Where in the workload the phases of a repeat lie. The workload's steps are cut into segments of
/// warm-up plus measured steps; repeat r runs segment r + 1 whatever its policy and condition, so
/// all cells of a repeat see the same steps, and plans with the measured steps of segment r, which
/// no phase of the repeat runs again. Segment 0 is a lead-in that is only looked at.
///
/// A phase that serves requests takes as many steps as they need: segments then lie `stride` steps
/// apart, and repeat r serves from the end of segment r on, with which it plans.
struct Segments {
  int warmup_steps = 0;
  int steps = 0;
  std::int64_t stride = 0;  ///< from segment to segment; 0: they follow one another
  [[nodiscard]] std::int64_t first_measured(int segment) const noexcept {
    const std::int64_t apart = stride > 0 ? stride : warmup_steps + steps;
    return segment * apart + warmup_steps;
  }
  /// Of the requests of a repeat.
  [[nodiscard]] std::int64_t first_served(int repeat) const noexcept {
    return first_measured(planned_from(repeat)) + steps;
  }
  [[nodiscard]] static int run_by(int repeat) noexcept { return repeat + 1; }
  [[nodiscard]] static int planned_from(int repeat) noexcept { return repeat; }
};

/// Loads of `steps` steps from `first_step` on, [steps][layers][experts], the same on every rank:
/// each rank samples its share of the steps and gets the others' by all-gather. Collective.
workload::Loads sample_loads(const mpi::Communicator& comm, const workload::Routing& routing,
                             std::int64_t first_step, int steps, std::int64_t tokens);

}  // namespace moevar::run
