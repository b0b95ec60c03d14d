#include "run/runner.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "record/earlier_speeds.hpp"
#include "record/record.hpp"
#include "run/cpu_backend.hpp"
#include "run/cuda_backend.hpp"
#include "run/load_windows.hpp"
#include "run/measure.hpp"
#include "run/memory.hpp"
#include "run/model_backend.hpp"
#include "run/placer.hpp"
#include "run/resumption.hpp"
#include "run/routing_source.hpp"
#include "run/sensors.hpp"
#include "run/serving_run.hpp"
#include "run/share.hpp"
#include "system/files.hpp"
#include "system/signals.hpp"
#include "system/whereabouts.hpp"

namespace moevar::run {

namespace {

/// Workload steps kept for the requests of a repeat: more than any run of them takes.
constexpr std::int64_t kServedSteps = std::int64_t{1} << 26;

/// A study on its way through its plan. One per run, on every rank.
class Runner {
 public:
  Runner(const mpi::Communicator& comm, const study::ParsedStudy& parsed)
      : comm_(comm),
        path_(parsed.path),
        study_(parsed.study),
        kind_(resolve_device(parsed)),
        plan_(study::make_plan(parsed.study)),
        routing_(share_routing(comm, parsed)),
        recorded_(share_requests(comm, parsed)),
        segments_{parsed.study.phases.warmup_steps, most_steps(parsed.study.phases),
                  parsed.study.serves() ? kServedSteps : 0},
        loads_(comm_, study_, *routing_, segments_),
        placer_(comm_, study_) {
    study_.model.layers = routing_->shape().layers;
    // the largest fleet needs the most ranks, the one with most slots a device the most memory a
    // rank: they tell at once whether all of the plan can be had
    mpi::on_root(comm_, [&] {
      check_routing(study_, segments_);
      check_requests(parsed, recorded_);
      if (!study_.phases.speed_models.empty()) {
        open_earlier_speeds(parsed);
      }
    });
    check_memory(comm_, study_, plan_);
    for (auto most : {&study::PhaseSpec::devices, &study::PhaseSpec::slots_per_device}) {
      const auto backend =
          make_backend(comm_, study_, kind_, *std::ranges::max_element(plan_, {}, most));
      if (largest_fleet_.empty()) {
        largest_fleet_ = backend->fleet();
      }
    }
  }

  record::Summary run(const RunOptions& options, Observer& observer) {
    auto found = look_into(comm_, options, {path_, study_, plan_, largest_fleet_});
    if (found.complete) {
      return finished(options, observer);
    }
    stop_requested_ = options.stop_requested;
    observer_ = &observer;
    if (!found.manifest.sessions.empty()) {
      session_ = found.manifest.sessions.back();
    }
    record::Summary summary{study_.name, to_string(kind_), false, {}};
    record::StudyWriter writer(
        comm_, options.directory,
        {study_.name, study::to_toml(study_), options.version, to_string(kind_),
         static_cast<int>(plan_.size()), pool_of(study_), std::move(found.manifest)},
        found.recorded ? &*found.recorded : nullptr);
    if (comm_.is_root()) {
      observer.planned(plan_);
    }
    if (found.resumes) {
      take_up(found.recorded, summary);
    }
    if (comm_.is_root()) {
      if (found.resumes) {
        observer.resumed(summary.cells.size());
      }
      observer.changed(found.changes);
    }
    try {
      for (const auto& phase : std::span(plan_).subspan(summary.cells.size())) {
        stop_if_asked(summary.cells.size());
        run_one(phase, options.directory, writer, summary, observer);
      }
    } catch (...) {
      if (comm_.is_root() && !summary.cells.empty()) {
        try {
          store(options.directory, summary);
        } catch (...) {  // NOLINT(bugprone-empty-catch): the cause is on its way already
        }
      }
      throw;
    }
    whereabouts::enter_stage("joining study.h5");
    writer.finish();
    summary.complete = true;
    mpi::on_root(comm_, [&] { store(options.directory, summary); });
    writer.remove_parts();
    return summary;
  }

 private:
  void open_earlier_speeds(const study::ParsedStudy& parsed) {
    try {
      earlier_speeds_.emplace(study_.phases.speed_models);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", parsed.at("phases.speed_models"), error.what()));
    }
  }

  /// Ends all ranks together where any was asked to.
  void stop_if_asked(std::size_t done) const {
    std::int64_t signal = stop_requested_();
    comm_.all_reduce_max(std::span(&signal, 1));
    if (signal != 0) {
      throw mpi::SharedError(
          ExitStatus::interrupted,
          fmt::format("stopped by {} with {} of {} phases recorded; the same command with --resume "
                      "goes on with the next",
                      signals::name_of(static_cast<int>(signal)), done, plan_.size()));
    }
  }

  void run_one(const study::PhaseSpec& phase, const std::filesystem::path& directory,
               record::StudyWriter& writer, record::Summary& summary, Observer& observer) {
    whereabouts::enter_phase(phase.index);
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

  /// Cells stand in the order of the study file, whatever the order in which their phases ran.
  [[nodiscard]] std::array<std::ptrdiff_t, 9> place_of(const record::CellSummary& cell) const {
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
            cell.serving ? position(study_.serving.rates, cell.serving->rate) : 0,
            position(study_.placement.policies, cell.policy),
            cell.repeat};
  }

  /// Rank 0 alone.
  void store(const std::filesystem::path& directory, record::Summary& summary) const {
    std::ranges::stable_sort(summary.cells, {},
                             [&](const record::CellSummary& cell) { return place_of(cell); });
    record::write_summary(directory, summary);
  }

  /// Devices, experts, whether all are equal, number of the draw.
  using FleetKey = std::tuple<int, int, bool, int>;
  [[nodiscard]] FleetKey fleet_of(const study::PhaseSpec& phase) const {
    return {phase.devices, phase.experts, phase.equal_fleet,
            study_.fleet.pool > 0 ? phase.repeat : 0};
  }
  /// A fleet and whether its loads are even, for they ask for other ranges of its speed models.
  using SpeedsKey = std::pair<FleetKey, bool>;
  [[nodiscard]] SpeedsKey speeds_key_of(const study::PhaseSpec& phase) const {
    return {fleet_of(phase), phase.even_load};
  }

  /// Puts the fleet under the phase's condition, and measures speed models where the study wants
  /// them.
  void enter(const study::PhaseSpec& phase, const Matrix<double>& mean_loads) {
    const bool new_fleet = make_fleet_of(phase);
    if (new_fleet || phase.new_condition) {
      backend_->enter(phase.condition);
    }
    const auto wanted = speeds_key_of(phase);
    if (study_.phases.profile == study::Profiling::condition) {
      if (new_fleet || phase.new_condition) {
        profile(phase, mean_loads);
      }
    } else if (speeds_of_ != wanted) {
      leave_speeds(wanted);
      if (const auto known = profiled_once_.find(wanted); known != profiled_once_.end()) {
        placer_.recall(known->second);
      } else {
        profile(phase, mean_loads);
      }
    }
    speeds_of_ = wanted;
  }

  void profile(const study::PhaseSpec& phase, const Matrix<double>& mean_loads) {
    whereabouts::enter_stage("profiling");
    if (study_.phases.speed_models.empty() || !take_earlier(phase, mean_loads)) {
      placer_.profile(phase, *backend_, mean_loads);
    }
  }

  /// Whether the run that the study names had the speed models that are wanted, which then are the
  /// present ones.
  bool take_earlier(const study::PhaseSpec& phase, const Matrix<double>& mean_loads) {
    const auto state = backend_->settle();
    std::vector<double> enforced_cap_w;
    for (const auto& device : state.devices) {
      enforced_cap_w.push_back(device.cap.enforced_w);
    }
    record::EarlierSpeeds::Found found;
    mpi::on_root(comm_, [&] {
      found = earlier_speeds_->find({study_, backend_->fleet(), phase, enforced_cap_w, session_,
                                     Placer::range_of_models(mean_loads, phase.slots_per_device)});
      if (!found.difference.empty() && told_.insert(found.difference).second) {
        observer_->measured_anew(found.difference);
      }
    });
    share(comm_, found.models);
    if (found.models.empty()) {
      return false;
    }
    placer_.recall(std::move(found.models));
    return true;
  }

  /// Whether the fleet was another one before.
  bool make_fleet_of(const study::PhaseSpec& phase) {
    if (backend_ != nullptr && fleet_ == fleet_of(phase)) {
      return false;
    }
    backend_.reset();  // its memory goes before the next one's comes
    backend_ = make_backend(comm_, study_, kind_, phase);
    fleet_ = fleet_of(phase);
    whereabouts::drive(backend_->mine().begin, backend_->mine().size());
    return true;
  }

  /// Keeps the present speed models for when their fleet comes back; another draw's never does.
  void leave_speeds(const SpeedsKey& next) {
    if (speeds_of_) {
      profiled_once_[*speeds_of_] = placer_.speeds();
    }
    std::erase_if(profiled_once_, [&](const auto& known) {
      return std::get<3>(known.first.first) != std::get<3>(next.first);
    });
  }

  record::CellSummary run_phase(const study::PhaseSpec& phase, record::StudyWriter& writer) {
    const int segment = Segments::run_by(phase.repeat);
    whereabouts::enter_stage("sampling loads");
    const auto& planned = loads_.loads_of(phase, Segments::planned_from(phase.repeat));
    // steps that requests make have loads of their own
    const auto& measured = study_.serves() ? planned : loads_.loads_of(phase, segment);
    const auto mean_loads = workload::mean_loads(planned);
    whereabouts::enter_stage("entering the condition");
    enter(phase, mean_loads);
    whereabouts::enter_stage("placing experts");
    const auto placing = placer_.place(phase, *backend_, {planned, measured, mean_loads});
    const auto& placement = placing.placements.front();
    const std::int64_t tokens = loads_.tokens_of_step(phase.devices);
    const std::int64_t first_step =
        study_.serves() ? segments_.first_served(phase.repeat) : segments_.first_measured(segment);
    whereabouts::enter_stage("settling");
    const auto state = backend_->settle();
    stop_if_asked(static_cast<std::size_t>(phase.index));  // bringing up the heat can take long
    whereabouts::enter_stage("steps");
    auto [result, stop_reason, served] =
        study_.serves() ? serve(phase, placement, mean_loads)
                        : steps(phase, first_step, measured, placing.placements);
    whereabouts::enter_stage("recording");
    const std::string workload = to_string(study_.workload.kind);
    auto cell = record::summarise(phase, workload, state, result.totals, placement, placing.because,
                                  placing.migration.moved_experts, placing.migration.time_ms);
    cell.stop_reason = stop_reason;
    cell.overlap = to_string(study_.fleet.overlap);
    if (served) {
      cell.serving = std::move(served->summary);
    }
    writer.write({.spec = phase,
                  .workload = workload,
                  .heat = to_string(phase.condition.heat),
                  .first_step = first_step,
                  .tokens_per_step = tokens,
                  .timer = backend_->timer(),
                  .sync = backend_->sync(),
                  .clock_residual_ns = result.clock_residual_ns,
                  .reference_error = result.reference_error,
                  .clock_step_ns = result.clock_step_ns,
                  .stamping_share = result.stamping_share,
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
                  .per_step = placing.per_step,
                  .device_totals = served ? std::optional(served->device_totals) : std::nullopt,
                  .serving = served ? &served->record : nullptr,
                  .cell = cell,
                  .to_resume = placer_.state(phase)},
                 study_.record.timelines && !served);
    return cell;
  }

  /// What the steps of a phase were.
  struct Ran {
    PhaseResult result;
    std::string stop_reason;
    std::optional<ServingResult> served;
  };

  Ran steps(const study::PhaseSpec& phase, std::int64_t first_step, const workload::Loads& loads,
            std::span<const placement::Placement> placements) {
    auto [result, stop_reason] = measure(
        comm_, study_.phases, *backend_,
        {phase.index, first_step, segments_.warmup_steps, loads_.tokens_of_step(phase.devices),
         loads_.routing_of(phase), loads, placements});
    placer_.watch(phase, loads, result.mine);
    return {std::move(result), std::move(stop_reason), std::nullopt};
  }

  Ran serve(const study::PhaseSpec& phase, const placement::Placement& placement,
            const Matrix<double>& planned) {
    const auto routing = [&](int kind) -> const workload::Routing& {
      return loads_.routing_of(phase, kind);
    };
    auto served = serve_phase(comm_,
                              {.study = study_,
                               .phase = phase,
                               .recorded = recorded_,
                               .routing = routing,
                               .first_step = segments_.first_served(phase.repeat),
                               .rest = rest_[fleet_],
                               .placement = placement,
                               .speeds = placer_.speeds(),
                               .planned = planned},
                              *backend_);
    return {std::move(served.steps), "requests", std::move(served)};
  }

  /// Takes up where the folder's earlier sessions ended: `recorded`, which rank 0 alone has, holds
  /// the plan's first phases. The rest then comes out as if there had been no break.
  void take_up(const std::optional<record::RecordedRun>& recorded, record::Summary& summary) {
    auto done = static_cast<std::int64_t>(recorded ? recorded->phases() : 0);
    comm_.all_reduce_max(std::span(&done, 1));
    for (std::int64_t i = 0; i < done; ++i) {
      auto text = recorded ? record::to_json_text(recorded->cell(static_cast<std::size_t>(i)))
                           : std::string();
      comm_.broadcast(text);
      summary.cells.push_back(record::cell_from_json(text));
    }
    if (done > 0) {
      take_up_plans(recorded, summary);
      take_up_speeds(recorded, summary);
      take_up_fleet(recorded, summary);
    }
  }

  /// What rank 0 reads with `read`, on every rank.
  template <class T, class Read>
  [[nodiscard]] T shared(const Read& read) const {
    T value{};
    mpi::on_root(comm_, [&] { value = read(); });
    if constexpr (std::is_same_v<T, std::string>) {
      comm_.broadcast(value);
    } else {
      share(comm_, value);
    }
    return value;
  }

  /// Whether phases of that repeat have anything to say to the next one.
  [[nodiscard]] bool of_this_draw(std::size_t phase, std::size_t done) const {
    return study_.fleet.pool == 0 || plan_[phase].repeat == plan_[done - 1].repeat;
  }

  void take_up_plans(const std::optional<record::RecordedRun>& recorded,
                     const record::Summary& summary) {
    const std::size_t done = summary.cells.size();
    struct Last {
      std::size_t ran = 0;
      std::size_t solved = 0;
    };
    std::map<Placer::PlanKey, Last> plans;
    for (std::size_t i = 0; i < done; ++i) {
      if (of_this_draw(i, done) && !placement::find_policy(plan_[i].policy).per_step()) {
        auto& last = plans[Placer::key_of(plan_[i])];
        last.ran = i;
        last.solved = summary.cells[i].solved_because == kKept ? last.solved : i;
      }
    }
    for (const auto& plan : plans) {
      const Last& last = plan.second;
      auto placement = shared<placement::Placement>([&] { return recorded->placement(last.ran); });
      const auto state = shared<std::string>([&] { return recorded->state(last.ran); });
      const auto speeds =
          state.empty()
              ? placement::SpeedModels{}
              : shared<placement::SpeedModels>([&] { return recorded->speeds(last.solved); });
      const auto& phase = plan_[last.ran];
      placer_.restore(phase, std::move(placement), speeds,
                      devices_of_rank(kind_, study_.fleet, comm_, phase.devices), state);
    }
  }

  void take_up_speeds(const std::optional<record::RecordedRun>& recorded,
                      const record::Summary& summary) {
    const std::size_t done = summary.cells.size();
    if (study_.phases.profile != study::Profiling::once) {
      return;
    }
    std::map<SpeedsKey, std::size_t> last;
    for (std::size_t i = 0; i < done; ++i) {
      if (of_this_draw(i, done)) {
        last[speeds_key_of(plan_[i])] = i;
      }
    }
    for (const auto& [key, phase] : last) {
      profiled_once_[key] =
          shared<placement::SpeedModels>([&, i = phase] { return recorded->speeds(i); });
    }
  }

  /// The fleet of the next phase, where the last one ran on it: its experts, its condition and its
  /// speed models.
  void take_up_fleet(const std::optional<record::RecordedRun>& recorded,
                     const record::Summary& summary) {
    const std::size_t done = summary.cells.size();
    if (done == plan_.size() || fleet_of(plan_[done]) != fleet_of(plan_[done - 1])) {
      return;
    }
    const auto& next = plan_[done];
    make_fleet_of(next);
    for (std::size_t i = done; i-- > 0 && fleet_of(plan_[i]) == fleet_;) {
      if (!placement::find_policy(plan_[i].policy).per_step()) {
        (void)backend_->move_to(
            shared<placement::Placement>([&] { return recorded->placement(i); }));
        break;
      }
    }
    if (!next.new_condition) {
      backend_->enter(next.condition);
    }
    if (!next.new_condition || study_.phases.profile == study::Profiling::once) {
      placer_.recall(shared<placement::SpeedModels>([&] { return recorded->speeds(done - 1); }));
      speeds_of_ = speeds_key_of(plan_[done - 1]);
      auto from = static_cast<std::int64_t>(recorded ? recorded->speeds_from(done - 1) : 0);
      comm_.all_reduce_max(std::span(&from, 1));
      speeds_ = {placer_.profiles(), static_cast<int>(from)};
    }
  }

  /// A run that has nothing left to do: its summary as it is.
  record::Summary finished(const RunOptions& options, Observer& observer) const {
    auto text = std::string();
    mpi::on_root(comm_, [&] {
      text = files::read_text(options.directory / "summary.json");
      observer.planned(plan_);
      observer.resumed(plan_.size());
    });
    comm_.broadcast(text);
    return record::summary_from_json(text);
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
  std::string path_;    ///< of the study file
  study::Study study_;  ///< as parsed, with the layers that the routing really has
  study::DeviceKind kind_;
  std::vector<study::PhaseSpec> plan_;
  std::unique_ptr<workload::Routing> routing_;
  std::vector<workload::Request> recorded_;             ///< requests, where they come from a file
  std::map<FleetKey, std::optional<RestOfStep>> rest_;  ///< real devices': timed once a fleet
  Segments segments_;
  LoadWindows loads_;

  std::optional<record::EarlierSpeeds> earlier_speeds_;  ///< rank 0, where the study names a run
  record::Session session_;                              ///< this one; rank 0
  std::set<std::string> told_;                           ///< why earlier ones were not taken
  Observer* observer_ = nullptr;                         ///< of the run under way

  std::vector<DeviceIdentity> largest_fleet_;
  std::function<int()> stop_requested_;

  std::unique_ptr<Backend> backend_;
  FleetKey fleet_;                                             ///< of backend_
  std::map<SpeedsKey, placement::SpeedModels> profiled_once_;  ///< with profile = "once"
  std::optional<SpeedsKey> speeds_of_;                         ///< of the placer's speed models
  std::pair<int, int> speeds_{0, 0};  ///< profiles so far, phase that was first with the last
  Placer placer_;
};

}  // namespace

DeviceRange devices_of_rank(study::DeviceKind kind, const study::Fleet& fleet,
                            const mpi::Communicator& comm, int devices) {
  if (kind == study::DeviceKind::model) {
    return block_of(comm.rank(), comm.size(), devices);
  }
  const int each = kind == study::DeviceKind::cuda ? fleet.lanes() : 1;
  const DeviceId begin = std::min(comm.rank() * each, devices);
  return {begin, std::min(begin + each, devices)};
}

std::unique_ptr<Backend> make_backend(const mpi::Communicator& comm, const study::Study& study,
                                      study::DeviceKind kind, const study::PhaseSpec& phase) {
  // room for the largest step
  const int of_budget = (study.serving.token_budget + phase.devices - 1) / phase.devices;
  const int tokens = std::max(study.workload.tokens_per_device, study.serves() ? of_budget : 0);
  auto model = study.model;
  model.experts = phase.experts;
  if (kind == study::DeviceKind::cpu) {
    return std::make_unique<CpuBackend>(comm, model, study.seed, phase.devices, tokens,
                                        phase.slots_per_device * phase.devices - phase.experts,
                                        cpu_sensors(comm, study, phase.devices),
                                        study.phases.profile_devices);
  }
  if (kind == study::DeviceKind::cuda) {
    return make_cuda_backend(comm, study, model, phase, tokens);
  }
  return std::make_unique<ModelBackend>(comm, study.fleet, model, study.seed, phase.devices, tokens,
                                        ModelOptions{.heat = heat_options(study),
                                                     .telemetry_hz = study.record.telemetry_hz,
                                                     .draw = phase.repeat,
                                                     .equal = phase.equal_fleet});
}

record::Summary run_study(const mpi::Communicator& comm, const study::ParsedStudy& parsed,
                          const RunOptions& options, Observer& observer) {
  mpi::on_root(comm, [&] {
    check_study(parsed);
    check_devices(parsed);
  });
  return Runner(comm, parsed).run(options, observer);
}

}  // namespace moevar::run
