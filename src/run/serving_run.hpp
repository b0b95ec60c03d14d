#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "placement/placement.hpp"
#include "placement/speed_model.hpp"
#include "record/serving_record.hpp"
#include "run/backend.hpp"
#include "study/parse.hpp"
#include "study/plan.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"
#include "timeline/timeline.hpp"
#include "workload/requests.hpp"

namespace moevar::run {

/// The recorded requests that a study asks for, the same on every rank; none where it makes its
/// own. Rank 0 alone reads the file. Collective. Throws InputError that names the file and the key.
std::vector<workload::Request> share_requests(const mpi::Communicator& comm,
                                              const study::ParsedStudy& parsed);

/// Throws InputError that names the key where the requests of a study's phases cannot be made, or
/// not be served; before anything is. `recorded`: as share_requests has them.
void check_requests(const study::ParsedStudy& parsed,
                    const std::vector<workload::Request>& recorded);

/// The rest of the model's layers beside the MoE ones, linear in a step's tokens.
struct RestOfStep {
  double fixed_us = 0.0;
  double token_us = 0.0;
  [[nodiscard]] double seconds(std::int64_t tokens) const {
    return 1e-6 * (fixed_us + token_us * static_cast<double>(tokens));
  }
};

/// A phase that serves requests. What it refers to outlives it.
struct ServingPhase {
  const study::Study& study;
  const study::PhaseSpec& phase;
  const std::vector<workload::Request>& recorded;  ///< as share_requests has them
  /// Routing of the n-th kind of requests that the study names, 0 for the first.
  std::function<const workload::Routing&(int kind)> routing;
  std::int64_t first_step = 0;  ///< workload step of its first step
  /// Of real devices: timed by the first phase of a fleet, and the same for all after it.
  std::optional<RestOfStep>& rest;
  const placement::Placement& placement;
  const placement::SpeedModels& speeds;
  const Matrix<double>& planned;  ///< mean loads that the placement was solved with
};

struct ServingResult {
  /// Of all steps; `mine` holds none, there may be far too many.
  PhaseResult steps;
  timeline::DeviceTotals device_totals;  ///< of this rank's devices
  record::ServingSummary summary;
  record::ServingRecord record;
};

/// Serves the phase's requests: in virtual time where the backend computes its steps, else for
/// real, as they come. A step takes its MoE layers, plus what the rest of the model would: the same
/// for every policy, from the shares of [serving] at the fleet's mean speed and even loads, linear
/// in tokens. With find_rate the run is repeated at several rates, and the last one, at the rate
/// found, is kept. Collective; deterministic at any number of ranks in virtual time.
ServingResult serve_phase(const mpi::Communicator& comm, const ServingPhase& phase,
                          Backend& backend);

}  // namespace moevar::run
