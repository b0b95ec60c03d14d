#include "run/runner.hpp"

#include <algorithm>
#include <array>
#include <list>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "placement/drift.hpp"
#include "record/record.hpp"
#include "run/cpu_backend.hpp"
#include "run/model_backend.hpp"
#include "run/placer.hpp"
#include "run/routing_source.hpp"
#include "run/sensors.hpp"
#include "system/affinity.hpp"

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
        segments_{parsed.study.phases.warmup_steps, parsed.study.phases.steps},
        placer_(comm_, study_) {
    study_.model.layers = routing_->shape().layers;
    // the largest fleet needs the most ranks, the smallest the most memory a rank: they tell at
    // once whether all of the plan can be had
    mpi::on_root(comm_, [&] { check_routing(study_, segments_); });
    check_memory();
    const auto [smallest, largest] = std::ranges::minmax(study_.fleet.devices);
    (void)make_backend(comm_, study_, kind_, largest);
    (void)make_backend(comm_, study_, kind_, smallest);
  }

  record::Summary run(const std::filesystem::path& directory, const std::string& version,
                      Observer& observer) {
    record::StudyWriter writer(comm_, directory,
                               {study_.name, study::to_toml(study_), version, to_string(kind_),
                                static_cast<int>(plan_.size())});
    record::Summary summary{study_.name, to_string(kind_), false, {}};
    if (comm_.is_root()) {
      observer.planned(plan_);
    }
    for (const auto& phase : plan_) {
      if (comm_.is_root()) {
        observer.phase_begins(phase);
      }
      summary.cells.push_back(run_phase(phase, writer));
      std::ranges::stable_sort(summary.cells, {},
                               [&](const record::CellSummary& cell) { return place_of(cell); });
      store(directory, summary);
      if (comm_.is_root()) {
        observer.phase_done(phase);
      }
    }
    writer.finish();
    summary.complete = true;
    store(directory, summary);
    return summary;
  }

 private:
  /// Loads of the steps that a phase plans with and of those that it runs.
  struct Window {
    int devices = 0;
    int segment = -1;
    workload::Loads loads;
  };

  [[nodiscard]] std::int64_t tokens_of_step(int devices) const {
    return std::int64_t{study_.workload.tokens_per_device} * devices;
  }

  [[nodiscard]] bool plans_every_step() const {
    return std::ranges::any_of(study_.placement.policies, [](const auto& name) {
      return placement::find_policy(name).per_step();
    });
  }

  /// Slots of a step's own placement, over all devices. A policy that starts from where experts lie
  /// adds what devices fetch: on DeepSeek-V3's recorded counts (prefill_in4096), 4096 tokens a
  /// device, harmoeny's fullest device of 8 ... 256 fetched 3 to 9.
  [[nodiscard]] double slots_of_step() const {
    constexpr double kFetched = 9.0;
    const bool fetch = std::ranges::any_of(study_.placement.policies, [](const auto& name) {
      return placement::find_policy(name).from_home;
    });
    return study_.model.experts + study_.placement.redundant_experts +
           (fetch ? kFetched * std::ranges::max(study_.fleet.devices) : 0.0);
  }

  /// Expert and share of every slot, kept for every policy on every fleet, and for every step of a
  /// phase where one plans each anew.
  [[nodiscard]] double placement_bytes() const {
    constexpr double kSlotBytes = sizeof(std::int32_t) + sizeof(double);
    const double slots = study_.model.experts + study_.placement.redundant_experts;
    const auto kept =
        static_cast<double>(study_.placement.policies.size() * study_.fleet.devices.size());
    const double of_steps = plans_every_step() ? slots_of_step() * study_.phases.steps : 0.0;
    return kSlotBytes * study_.model.layers * (slots * kept + of_steps);
  }

  /// What rank 0 alone plans with: a trace, and the loads in which drift is looked for.
  [[nodiscard]] double planning_bytes() const {
    const auto& spec = study_.placement;
    const double trace =
        plans_every_step() ? study_.phases.steps : std::min(study_.phases.steps, spec.trace_steps);
    const double watched =
        spec.recompute == study::Recompute::on_drift
            ? static_cast<double>(spec.policies.size() * study_.fleet.devices.size()) *
                  placement::DriftOptions{}.window
            : 0.0;
    return (8.0 * trace + 4.0 * watched) * study_.model.layers * study_.model.experts;
  }

  /// Loads of two windows and the placements on every rank, timelines of the rank's devices, and on
  /// the rank that plans and writes a trace and one array of the whole fleet must fit in memory,
  /// counted for a node that holds all ranks of it.
  void check_memory() const {
    const auto node = comm_.split_by_node();
    mpi::on_all(comm_, [&] {
      const double calls = 1.0 * study_.phases.steps * study_.model.layers;
      const double devices = std::ranges::max(study_.fleet.devices);
      const double here = devices * node.size() / comm_.size();
      const double loads = 4.0 * study_.model.experts;
      const double needed = calls * (2.0 * loads * node.size() + 44.0 * here + 8.0 * devices) +
                            placement_bytes() * node.size() + planning_bytes();
      const auto available = static_cast<double>(affinity::available_memory_bytes());
      if (needed > available) {
        throw EnvironmentError(fmt::format(
            "{} steps × {} layers × {} experts on {} devices need {:.0f} GiB on host {}, which has "
            "{:.0f} GiB; fewer steps a phase (phases.steps), layers or devices, or more nodes",
            study_.phases.steps, study_.model.layers, study_.model.experts, devices,
            needed / 0x1p30, affinity::host_name(), available / 0x1p30));
      }
    });
  }

  /// Cells stand in the order of the study file, whatever the order in which their phases ran.
  [[nodiscard]] std::array<std::ptrdiff_t, 5> place_of(const record::CellSummary& cell) const {
    const auto position = [](const auto& list, const auto& value) {
      return std::ranges::find(list, value) - list.begin();
    };
    return {position(study_.fleet.devices, cell.devices),
            cell.power_cap_w ? position(study_.conditions.power_cap_w, *cell.power_cap_w) : 0,
            std::ranges::find(study_.conditions.heat, cell.heat,
                              [](study::Heat heat) { return to_string(heat); }) -
                study_.conditions.heat.begin(),
            position(study_.placement.policies, cell.policy), cell.repeat};
  }

  void store(const std::filesystem::path& directory, const record::Summary& summary) const {
    mpi::on_root(comm_, [&] { record::write_summary(directory, summary); });
  }

  /// The two windows of a repeat serve all its phases with the same fleet size, and the second of
  /// them the next repeat, so those two are kept. Valid until two others have been asked for.
  const workload::Loads& loads_of(int devices, int segment) {
    const auto known = std::ranges::find_if(
        windows_, [&](const Window& w) { return w.devices == devices && w.segment == segment; });
    if (known != windows_.end()) {
      windows_.splice(windows_.end(), windows_, known);
    } else {
      if (windows_.size() == 2) {
        windows_.pop_front();
      }
      windows_.push_back({devices, segment,
                          sample_loads(comm_, *routing_, segments_.first_measured(segment),
                                       segments_.steps, tokens_of_step(devices))});
    }
    return windows_.back().loads;
  }

  /// Puts the fleet under the phase's condition, and measures speed models where the study wants
  /// them.
  void enter(const study::PhaseSpec& phase, const Matrix<double>& mean_loads) {
    const bool new_fleet =
        backend_ == nullptr || backend_->fleet().size() != static_cast<std::size_t>(phase.devices);
    if (new_fleet) {
      backend_.reset();  // its memory goes before the next one's comes
      backend_ = make_backend(comm_, study_, kind_, phase.devices);
    }
    if (!new_fleet && !phase.new_condition) {
      return;
    }
    backend_->enter(phase.condition);
    if (new_fleet || study_.phases.profile == study::Profiling::condition) {
      placer_.profile(*backend_, mean_loads);
    }
  }

  record::CellSummary run_phase(const study::PhaseSpec& phase, record::StudyWriter& writer) {
    const int segment = Segments::run_by(phase.repeat);
    const auto& planned = loads_of(phase.devices, Segments::planned_from(phase.repeat));
    const auto& measured = loads_of(phase.devices, segment);
    const auto mean_loads = workload::mean_loads(planned);
    enter(phase, mean_loads);
    const auto placing = placer_.place(phase, *backend_, {planned, measured, mean_loads});
    const auto& placement = placing.placements.front();
    const std::int64_t tokens = tokens_of_step(phase.devices);
    const std::int64_t first_step = segments_.first_measured(segment);
    const auto state = backend_->settle();
    const auto result = backend_->run({phase.index, first_step, segments_.warmup_steps, tokens,
                                       *routing_, measured, placing.placements});
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
                  .solved_because = placing.because,
                  .per_step = placing.per_step},
                 study_.record.timelines);
    return record::summarise(phase, workload, state, result.totals, placement, placing.because,
                             placing.migration.moved_experts, placing.migration.time_ms);
  }

  const mpi::Communicator& comm_;
  study::Study study_;  ///< as parsed, with the layers that the routing really has
  study::DeviceKind kind_;
  std::vector<study::PhaseSpec> plan_;
  std::unique_ptr<workload::Routing> routing_;
  Segments segments_;

  std::unique_ptr<Backend> backend_;
  std::list<Window> windows_;
  Placer placer_;
};

}  // namespace

std::unique_ptr<Backend> make_backend(const mpi::Communicator& comm, const study::Study& study,
                                      study::DeviceKind kind, int devices) {
  const int tokens = study.workload.tokens_per_device;
  if (kind == study::DeviceKind::cpu) {
    return std::make_unique<CpuBackend>(comm, study.model, study.seed, devices, tokens,
                                        study.placement.redundant_experts,
                                        cpu_sensors(comm, study, devices));
  }
  return std::make_unique<ModelBackend>(comm, study.fleet, study.model, study.seed, devices, tokens,
                                        heat_options(study), study.record.telemetry_hz);
}

record::Summary run_study(const mpi::Communicator& comm, const study::ParsedStudy& parsed,
                          const std::filesystem::path& directory, const std::string& version,
                          Observer& observer) {
  mpi::on_root(comm, [&] { check_study(parsed); });
  return Runner(comm, parsed).run(directory, version, observer);
}

}  // namespace moevar::run
