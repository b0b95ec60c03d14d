#include "run/runner.hpp"

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "record/record.hpp"
#include "run/cpu_backend.hpp"
#include "run/measure.hpp"
#include "run/memory.hpp"
#include "run/model_backend.hpp"
#include "run/placer.hpp"
#include "run/routing_source.hpp"
#include "run/sensors.hpp"

namespace moevar::run {

namespace {

/// A study on its way through its plan. One per run, on every rank.
class Runner {
 public:
  Runner(const mpi::Communicator& comm, const study::ParsedStudy& parsed)
      : comm_(comm),
        study_(parsed.study),
        kind_(resolve_device(parsed)),
        plan_(study::make_plan(parsed.study)),
        routing_(share_routing(comm, parsed)),
        segments_{parsed.study.phases.warmup_steps, most_steps(parsed.study.phases)},
        placer_(comm_, study_) {
    study_.model.layers = routing_->shape().layers;
    // the largest fleet needs the most ranks, the one with most slots a device the most memory a
    // rank: they tell at once whether all of the plan can be had
    mpi::on_root(comm_, [&] { check_routing(study_, segments_); });
    check_memory(comm_, study_, plan_);
    for (auto most : {&study::PhaseSpec::devices, &study::PhaseSpec::slots_per_device}) {
      (void)make_backend(comm_, study_, kind_, *std::ranges::max_element(plan_, {}, most));
    }
  }

  record::Summary run(const std::filesystem::path& directory, const std::string& version,
                      Observer& observer) {
    record::StudyWriter writer(comm_, directory,
                               {study_.name, study::to_toml(study_), version, to_string(kind_),
                                static_cast<int>(plan_.size()), pool_of(study_)});
    record::Summary summary{study_.name, to_string(kind_), false, {}};
    if (comm_.is_root()) {
      observer.planned(plan_);
    }
    try {
      for (const auto& phase : plan_) {
        run_one(phase, directory, writer, summary, observer);
      }
    } catch (...) {
      if (comm_.is_root() && !summary.cells.empty()) {
        try {
          store(directory, summary);
        } catch (...) {  // NOLINT(bugprone-empty-catch): the cause is on its way already
        }
      }
      throw;
    }
    writer.finish();
    summary.complete = true;
    mpi::on_root(comm_, [&] { store(directory, summary); });
    return summary;
  }

 private:
  void run_one(const study::PhaseSpec& phase, const std::filesystem::path& directory,
               record::StudyWriter& writer, record::Summary& summary, Observer& observer) {
    if (comm_.is_root()) {
      observer.phase_begins(phase);
    }
    summary.cells.push_back(run_phase(phase, writer));
    mpi::on_root(comm_, [&] {
      if (writer.up_to_date()) {
        store(directory, summary);
      }
      observer.phase_done(phase);
    });
  }

  /// Loads of the steps that a phase plans with and of those that it runs.
  struct Window {
    int devices = 0;
    int experts = 0;
    bool even = false;
    int segment = -1;
    workload::Loads loads;
  };

  [[nodiscard]] std::int64_t tokens_of_step(int devices) const {
    return std::int64_t{study_.workload.tokens_per_device} * devices;
  }

  /// Cells stand in the order of the study file, whatever the order in which their phases ran.
  [[nodiscard]] std::array<std::ptrdiff_t, 8> place_of(const record::CellSummary& cell) const {
    const auto position = [](const auto& list, const auto& value) {
      return std::ranges::find(list, value) - list.begin();
    };
    return {position(study_.fleet.devices, cell.devices),
            position(study_.fleet.scaling, cell.scaling),
            cell.even_load ? 1 : 0,
            cell.equal_fleet ? 1 : 0,
            cell.power_cap_w ? position(study_.conditions.power_cap_w, *cell.power_cap_w) : 0,
            std::ranges::find(study_.conditions.heat, cell.heat,
                              [](study::Heat heat) { return to_string(heat); }) -
                study_.conditions.heat.begin(),
            position(study_.placement.policies, cell.policy),
            cell.repeat};
  }

  /// Rank 0 alone.
  void store(const std::filesystem::path& directory, record::Summary& summary) const {
    std::ranges::stable_sort(summary.cells, {},
                             [&](const record::CellSummary& cell) { return place_of(cell); });
    record::write_summary(directory, summary);
  }

  /// The study's own, or what it becomes with other experts or without skew. Valid until another
  /// one has been asked for.
  const workload::Routing& routing_of(const study::PhaseSpec& phase) {
    if (!phase.even_load && phase.experts == study_.model.experts) {
      return *routing_;
    }
    if (other_ == nullptr || other_->shape().experts != phase.experts ||
        other_is_even_ != phase.even_load) {
      other_.reset();  // its memory goes before the next one's comes
      other_ = synthetic_routing(study_, phase.experts, phase.even_load);
      other_is_even_ = phase.even_load;
    }
    return *other_;
  }

  /// The two windows of a repeat serve all its phases with the same fleet size and routing, and the
  /// second of them the next repeat, so those two are kept. Valid until two others have been asked
  /// for.
  const workload::Loads& loads_of(const study::PhaseSpec& phase, int segment) {
    const auto known = std::ranges::find_if(windows_, [&](const Window& w) {
      return w.devices == phase.devices && w.experts == phase.experts &&
             w.even == phase.even_load && w.segment == segment;
    });
    if (known != windows_.end()) {
      windows_.splice(windows_.end(), windows_, known);
    } else {
      if (windows_.size() == 2) {
        windows_.pop_front();
      }
      windows_.push_back({phase.devices, phase.experts, phase.even_load, segment,
                          sample_loads(comm_, routing_of(phase), segments_.first_measured(segment),
                                       segments_.steps, tokens_of_step(phase.devices))});
    }
    return windows_.back().loads;
  }

  /// Puts the fleet under the phase's condition, and measures speed models where the study wants
  /// them.
  void enter(const study::PhaseSpec& phase, const Matrix<double>& mean_loads) {
    const FleetKey wanted{phase.devices, phase.experts, phase.equal_fleet,
                          study_.fleet.pool > 0 ? phase.repeat : 0};
    const bool new_fleet = backend_ == nullptr || fleet_ != wanted;
    if (new_fleet) {
      backend_.reset();  // its memory goes before the next one's comes
      backend_ = make_backend(comm_, study_, kind_, phase);
      fleet_ = wanted;
    }
    if (!new_fleet && !phase.new_condition) {
      return;
    }
    backend_->enter(phase.condition);
    if (study_.phases.profile == study::Profiling::condition) {
      placer_.profile(phase, *backend_, mean_loads);
      return;
    }
    auto& once = profiled_once_[{wanted, phase.even_load}];
    if (once.empty()) {
      placer_.profile(phase, *backend_, mean_loads);
      once = placer_.speeds();
    } else if (new_fleet || last_even_ != phase.even_load) {
      placer_.recall(once);
    }
    last_even_ = phase.even_load;
  }

  record::CellSummary run_phase(const study::PhaseSpec& phase, record::StudyWriter& writer) {
    const int segment = Segments::run_by(phase.repeat);
    const auto& planned = loads_of(phase, Segments::planned_from(phase.repeat));
    const auto& measured = loads_of(phase, segment);
    const auto mean_loads = workload::mean_loads(planned);
    enter(phase, mean_loads);
    const auto placing = placer_.place(phase, *backend_, {planned, measured, mean_loads});
    const auto& placement = placing.placements.front();
    const std::int64_t tokens = tokens_of_step(phase.devices);
    const std::int64_t first_step = segments_.first_measured(segment);
    const auto state = backend_->settle();
    const auto [result, stop_reason] =
        measure(comm_, study_.phases, *backend_,
                {phase.index, first_step, segments_.warmup_steps, tokens, routing_of(phase),
                 measured, placing.placements});
    placer_.watch(phase, measured, result.mine);
    const std::string workload = to_string(study_.workload.kind);
    writer.write({.spec = phase,
                  .workload = workload,
                  .heat = to_string(phase.condition.heat),
                  .first_step = first_step,
                  .tokens_per_step = tokens,
                  .timer = backend_->timer(),
                  .sync = backend_->sync(),
                  .clock_residual_ns = result.clock_residual_ns,
                  .reference_error = result.reference_error,
                  .moved_experts = placing.migration.moved_experts,
                  .moved_bytes = placing.migration.bytes,
                  .migrate_ms = placing.migration.time_ms,
                  .fleet = backend_->fleet(),
                  .range = backend_->mine(),
                  .mine = result.mine,
                  .totals = result.totals,
                  .state = state,
                  .telemetry = result.telemetry,
                  .placement = placement,
                  .speeds = placer_.speeds(),
                  .speeds_from = speeds_from(phase),
                  .solved_because = placing.because,
                  .stop_reason = stop_reason,
                  .per_step = placing.per_step},
                 study_.record.timelines);
    auto cell = record::summarise(phase, workload, state, result.totals, placement, placing.because,
                                  placing.migration.moved_experts, placing.migration.time_ms);
    cell.stop_reason = stop_reason;
    return cell;
  }

  /// The earlier phase that was the first with the present speed models; none where they are new.
  std::optional<int> speeds_from(const study::PhaseSpec& phase) {
    if (speeds_.first != placer_.profiles()) {
      speeds_ = {placer_.profiles(), phase.index};
      return std::nullopt;
    }
    return speeds_.second;
  }

  const mpi::Communicator& comm_;
  study::Study study_;  ///< as parsed, with the layers that the routing really has
  study::DeviceKind kind_;
  std::vector<study::PhaseSpec> plan_;
  std::unique_ptr<workload::Routing> routing_;
  Segments segments_;

  std::unique_ptr<workload::Routing> other_;
  bool other_is_even_ = false;

  /// Devices, experts, whether all are equal, number of the draw.
  using FleetKey = std::tuple<int, int, bool, int>;
  std::unique_ptr<Backend> backend_;
  FleetKey fleet_;  ///< of backend_
  /// With profile = "once": by fleet and whether its loads are even, for they ask for other ranges.
  std::map<std::pair<FleetKey, bool>, placement::SpeedModels> profiled_once_;
  bool last_even_ = false;
  std::pair<int, int> speeds_{0, 0};  ///< profiles so far, phase that was first with the last
  std::list<Window> windows_;
  Placer placer_;
};

}  // namespace

std::unique_ptr<Backend> make_backend(const mpi::Communicator& comm, const study::Study& study,
                                      study::DeviceKind kind, const study::PhaseSpec& phase) {
  const int tokens = study.workload.tokens_per_device;
  auto model = study.model;
  model.experts = phase.experts;
  if (kind == study::DeviceKind::cpu) {
    return std::make_unique<CpuBackend>(comm, model, study.seed, phase.devices, tokens,
                                        phase.slots_per_device * phase.devices - phase.experts,
                                        cpu_sensors(comm, study, phase.devices));
  }
  return std::make_unique<ModelBackend>(comm, study.fleet, model, study.seed, phase.devices, tokens,
                                        ModelOptions{.heat = heat_options(study),
                                                     .telemetry_hz = study.record.telemetry_hz,
                                                     .draw = phase.repeat,
                                                     .equal = phase.equal_fleet});
}

record::Summary run_study(const mpi::Communicator& comm, const study::ParsedStudy& parsed,
                          const std::filesystem::path& directory, const std::string& version,
                          Observer& observer) {
  mpi::on_root(comm, [&] { check_study(parsed); });
  return Runner(comm, parsed).run(directory, version, observer);
}

}  // namespace moevar::run
