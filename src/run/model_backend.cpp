#include "run/model_backend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/tensor.hpp"
#include "conditions/cap.hpp"
#include "fleet/draw.hpp"
#include "placement/migration.hpp"
#include "run/slot_tokens.hpp"
#include "run/step_watch.hpp"
#include "system/whereabouts.hpp"

namespace moevar::run {

namespace {

/// Number of a layer call in the stream of a device's run noise: 24 bits of phase, 26 of step, 14
/// of layer.
constexpr std::uint64_t repetition(int phase, std::size_t step, std::size_t layer) noexcept {
  return (static_cast<std::uint64_t>(phase) << 40U) | (std::uint64_t{step} << 14U) | layer;
}

/// The parameters as the model can use them; throws InputError.
int checked_devices(const study::Fleet& fleet, int devices, int tokens_per_device) {
  if (devices < 1) {
    throw InputError(fmt::format("fleet.devices = {}: at least 1 is needed", devices));
  }
  if (tokens_per_device < 1) {
    throw InputError(
        fmt::format("workload.tokens_per_device = {}: at least 1 is needed", tokens_per_device));
  }
  if (!(fleet.spread >= 0.0) || !std::isfinite(fleet.spread)) {
    throw InputError(fmt::format("fleet.spread = {}: 0 or more is needed", fleet.spread));
  }
  return devices;
}

/// The GPUs of a fleet, in its order.
std::vector<DeviceId> members_of(const study::Fleet& fleet, std::uint64_t seed, int draw,
                                 int devices) {
  if (fleet.pool > 0) {
    return fleet::draw_devices(seed, draw, fleet.pool, devices, fleet.draw);
  }
  std::vector<DeviceId> first(static_cast<std::size_t>(devices));
  std::iota(first.begin(), first.end(), 0);
  return first;
}

}  // namespace

exchange::Links links_of(const fleet::GpuFamily& family) {
  return {.devices_per_node = fleet::kGpusPerNode,
          .intra_gb_s = family.intra_gb_s,
          .inter_gb_s = family.inter_gb_s,
          .intra_latency_us = family.intra_latency_us,
          .inter_latency_us = family.inter_latency_us};
}

std::vector<DeviceIdentity> pool_of(const study::Study& study) {
  std::vector<DeviceIdentity> pool;
  pool.reserve(static_cast<std::size_t>(study.fleet.pool));
  for (DeviceId g = 0; g < study.fleet.pool; ++g) {
    pool.push_back(fleet::model_identity(fleet::find_family(study.fleet.preset), study.seed, g));
  }
  return pool;
}

ModelBackend::ModelBackend(const mpi::Communicator& comm, const study::Fleet& fleet,
                           const study::ModelShape& model, std::uint64_t seed, int devices,
                           int tokens_per_device, const ModelOptions& options)
    : comm_(comm),
      family_(fleet::find_family(fleet.preset)),
      model_(model),
      seed_(seed),
      devices_(checked_devices(fleet, devices, tokens_per_device)),
      mine_(block_of(comm.rank(), comm.size(), devices)),
      links_(links_of(family_)),
      dispatch_(links_, devices, exchange::dispatch_bytes_per_token(model.hidden)),
      combine_(links_, devices, exchange::combine_bytes_per_token(model.hidden)),
      options_(options) {
  const auto members = members_of(fleet, seed, options.draw, devices);
  const fleet::FleetOptions spec{.spread = fleet.spread,
                                 .homogeneous = fleet.homogeneous,
                                 .equal = options.equal,
                                 .fail_slow = fleet.fail_slow};
  for (int rank = 0; rank < comm.size(); ++rank) {
    const DeviceRange block = block_of(rank, comm.size(), devices);
    for (DeviceId g = block.begin; g < block.end; ++g) {
      const DeviceId member = members[static_cast<std::size_t>(g)];
      identities_.push_back(fleet::model_identity(family_, seed, member));
      identities_.back().rank = rank;
      gpus_.push_back(fleet::draw_gpu(family_, spec, seed, member));
      if (fleet.draw == study::Draw::devices && gpus_.back().slot_sign != 0) {
        gpus_.back().slot_sign = g % 2 == 1 ? 1 : -1;  // where it has been put, not where it sat
      }
    }
  }
  if (fleet.transient) {
    plant_.emplace(comm_, family_, gpus_, mine_);
    at_rest_ = plant_->state();
  }
}

void ModelBackend::enter(const study::Condition& condition) {
  (void)conditions::requested_limit_w({family_.cap_min_w, family_.cap_max_w, family_.cap_max_w},
                                      condition.power_cap_w);
  condition_ = condition;
  solve_states(condition);
  if (plant_) {
    bring_to(condition);
  }
}

void ModelBackend::solve_states(const study::Condition& condition) {
  constexpr std::size_t kFields = 4;
  std::vector<double> solved;
  timeline::DeviceState state;
  for (DeviceId g = mine_.begin; g < mine_.end; ++g) {
    state = fleet::device_state(family_, gpus_[static_cast<std::size_t>(g)], fleet::gemm_activity(),
                                condition);
    solved.insert(solved.end(), {state.sm_clock_mhz, state.power_w, state.temperature_c,
                                 static_cast<double>(state.throttle_reasons)});
  }
  std::vector<double> all(kFields * gpus_.size());
  comm_.all_gather(std::span<const double>(solved), all);

  // what is the same for every device comes from any of them, also on a rank without devices
  state = fleet::device_state(family_, gpus_.front(), fleet::gemm_activity(), condition);
  auto& states = state_.devices;
  states.assign(gpus_.size(), state);
  for (std::size_t g = 0; g < gpus_.size(); ++g) {
    states[g].sm_clock_mhz = all[kFields * g];
    states[g].power_w = all[kFields * g + 1];
    states[g].temperature_c = all[kFields * g + 2];
    states[g].throttle_reasons = static_cast<std::uint64_t>(all[kFields * g + 3]);
  }
  state_.caps = "model";
  state_.sensors = "model";
}

void ModelBackend::bring_to(const study::Condition& condition) {
  plant_->restore(*at_rest_);  // whatever ran before
  ahead_s_ = 0.0;
  plant_->set_cap(condition.power_cap_w);
  const auto report = conditions::bring_to(*plant_, condition.heat, options_.heat);
  const auto readings = plant_->read();
  settled_ = condition.heat == study::Heat::soaked && report.steady();
  if (settled_) {
    plant_->settle();
  }
  entered_ = plant_->state();
  state_.heat_s = report.seconds;
  state_.window_s = report.window_s;
  const double cap_w = condition.power_cap_w.value_or(family_.cap_max_w);
  for (std::size_t g = 0; g < gpus_.size(); ++g) {
    auto& state = state_.devices[g];
    state.steady = report.devices[g].steady;
    state.slope_c_min = report.devices[g].slope_c_min;
    if (!settled_) {
      const auto point = fleet::solve_at(family_, gpus_[g], fleet::gemm_activity(), cap_w,
                                         readings[g].temperature_c);
      state.sm_clock_mhz = point.clock_mhz;
      state.power_w = point.power_w;
      state.temperature_c = point.temperature_c;
      state.throttle_reasons = fleet::throttle_reasons(point.limit);
    }
  }
}

timeline::FleetState ModelBackend::settle() {
  (void)states();
  if (plant_) {
    plant_->restore(*entered_);
    ahead_s_ = 0.0;
  }
  return state_;
}

const std::vector<timeline::DeviceState>& ModelBackend::states() const {
  if (state_.devices.empty()) {
    throw CheckError("modelled fleet: enter() a condition before profiling or running");
  }
  return state_.devices;
}

placement::SpeedModels ModelBackend::profile(int slots, double max_tokens,
                                             std::span<const DeviceId> devices) {
  const auto grid = placement::profile_grid(slots, static_cast<int>(kTileRows), max_tokens);
  std::vector<SlotWork> works;
  works.reserve(grid.size());
  for (const double tokens : grid) {
    const auto per_slot = static_cast<std::uint32_t>(std::lround(tokens / slots));
    works.push_back(
        SlotWork::of(std::vector<std::uint32_t>(static_cast<std::size_t>(slots), per_slot)));
  }
  placement::SpeedModels models;
  const std::size_t count = devices.empty() ? gpus_.size() : devices.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t g = devices.empty() ? i : static_cast<std::size_t>(devices[i]);
    const ExpertCost cost(family_, gpus_[g], model_, states()[g].sm_clock_mhz);
    std::vector<double> time_us;
    time_us.reserve(works.size());
    for (const SlotWork& work : works) {
      time_us.push_back(1e-3 * cost.time_ns(work));
    }
    models.emplace_back(grid, std::move(time_us));
  }
  return models;
}

// Every rank plans some of the layers. What devices send and receive is counted, so that the sums
// over ranks are exact.
Migration ModelBackend::move_to(const placement::Placement& placement) {
  Migration migration;
  if (placed_) {
    const auto layers = block_of(comm_.rank(), comm_.size(), placement.layers());
    enum Kind : std::size_t { in, out, in_across, out_across, kinds };
    std::vector<std::int64_t> sends(kinds * gpus_.size(), 0);
    std::vector<placement::Send> plan;
    mpi::on_all(comm_, [&] {
      plan = placement::plan_migration(*placed_, placement, layers.begin, layers.end);
    });
    for (const auto& send : plan) {
      const auto from = static_cast<std::size_t>(send.from_device);
      const auto to = static_cast<std::size_t>(send.to_device);
      const bool across = from / fleet::kGpusPerNode != to / fleet::kGpusPerNode;
      ++sends[kinds * to + (across ? in_across : in)];
      ++sends[kinds * from + (across ? out_across : out)];
      ++migration.moved_experts;
    }
    comm_.all_reduce_sum(sends);
    comm_.all_reduce_sum(std::span(&migration.moved_experts, 1));
    // the two kinds of link are used at once, each in both directions
    std::array<std::int64_t, 2> most{};
    for (std::size_t device = 0; device < gpus_.size(); ++device) {
      const auto* of = &sends[kinds * device];
      most[0] = std::max({most[0], of[in], of[out]});
      most[1] = std::max({most[1], of[in_across], of[out_across]});
    }
    const std::int64_t bytes = expert_bytes(model_);
    migration.bytes = migration.moved_experts * bytes;
    for (const bool across : {false, true}) {
      migration.time_ms =
          std::max(migration.time_ms, 1e-6 * static_cast<double>(most[across ? 1 : 0]) *
                                          exchange::point_to_point_ns(links_, bytes, across));
    }
  }
  placed_ = placement;
  return migration;
}

void ModelBackend::check_shapes(const PhaseSteps& steps) const {
  if (steps.placements.size() != 1 && steps.placements.size() != steps.loads.extent(0)) {
    throw InputError(fmt::format(
        "modelled phase: {} placements for {} steps; one for all, or one each is needed",
        steps.placements.size(), steps.loads.extent(0)));
  }
  for (const auto& placement : steps.placements) {
    check_shape(placement, steps.loads);
  }
}

void ModelBackend::check_shape(const placement::Placement& placement,
                               const workload::Loads& loads) const {
  const auto expect = [](const char* what, std::int64_t is, std::int64_t should) {
    if (is != should) {
      throw InputError(fmt::format("modelled phase: {} are {}, must be {}", what, is, should));
    }
  };
  expect("the placement's devices", placement.devices, devices_);
  expect("the placement's slots", static_cast<std::int64_t>(placement.expert_of_slot.extent(1)),
         placement.slots());
  expect("the shares' slots", static_cast<std::int64_t>(placement.share_of_slot.extent(1)),
         placement.slots());
  expect("the placement's layers", placement.layers(), static_cast<std::int64_t>(loads.extent(1)));
  expect("the shares' layers", static_cast<std::int64_t>(placement.share_of_slot.extent(0)),
         placement.layers());
  expect("the loads' experts", static_cast<std::int64_t>(loads.extent(2)), model_.experts);
}

std::vector<double> ModelBackend::settled_clocks() const {
  std::vector<double> clocks;
  for (DeviceId g = mine_.begin; g < mine_.end; ++g) {
    clocks.push_back(states()[static_cast<std::size_t>(g)].sm_clock_mhz);
  }
  return clocks;
}

std::vector<ModelBackend::Worker> ModelBackend::workers(std::span<const double> clocks_mhz) const {
  std::vector<Worker> all;
  for (DeviceId g = mine_.begin; g < mine_.end; ++g) {
    const auto i = static_cast<std::size_t>(g);
    const double clock = clocks_mhz[static_cast<std::size_t>(g - mine_.begin)];
    all.push_back({ExpertCost(family_, gpus_[i], model_, clock),
                   fleet::run_noise_key(seed_, identities_[i].device), gpus_[i].noise_sd});
  }
  return all;
}

PhaseResult ModelBackend::run(const PhaseSteps& steps) {
  check_shapes(steps);
  (void)states();
  const std::size_t calls = steps.loads.extent(0) * steps.loads.extent(1);
  PhaseResult result;
  result.mine = timeline::Timeline(static_cast<std::size_t>(mine_.size()), steps.loads.extent(0),
                                   steps.loads.extent(1));
  std::vector<std::int64_t> shared(2 * calls);
  const Peaks peaks{std::span(shared).first(calls), std::span(shared).last(calls)};
  if (settled_ || !plant_) {
    run_settled(steps, result, peaks);
  } else {
    run_in_time(steps, result, peaks);
  }
  fill_waits(result.mine, peaks);
  result.totals = timeline::reduce_totals(comm_, timeline::totals_of(result.mine));
  return result;
}

double ModelBackend::step_seconds(std::size_t step, std::size_t layers, Peaks peaks) const {
  Nanoseconds total = 0;
  for (std::size_t call = step * layers; call < (step + 1) * layers; ++call) {
    total += peaks.arrival_ns[call] + combine_.time_ns(peaks.tokens[call]);
  }
  return 1e-9 * static_cast<double>(total);
}

void ModelBackend::run_settled(const PhaseSteps& steps, PhaseResult& result, Peaks peaks) {
  const std::size_t count = result.mine.steps();
  simulate_experts(steps, {0, count}, settled_clocks(), result.mine, peaks);
  comm_.all_reduce_max(peaks.arrival_ns);
  comm_.all_reduce_max(peaks.tokens);
  if (!plant_) {
    return;
  }
  StepWatch watch(*plant_, count, options_.telemetry_hz);
  for (std::size_t step = 0; step < count; ++step) {
    plant_->run(step_seconds(step, result.mine.layers(), peaks));
    watch.note(step);
  }
  result.telemetry = watch.finish();
}

void ModelBackend::run_in_time(const PhaseSteps& steps, PhaseResult& result, Peaks peaks) {
  const std::size_t count = result.mine.steps();
  for (int i = 0; i < steps.warmup_steps && count > 0; ++i) {
    run_step_in_time(steps, 0, result, peaks);
  }
  StepWatch watch(*plant_, count, options_.telemetry_hz);
  for (std::size_t step = 0; step < count; ++step) {
    run_step_in_time(steps, step, result, peaks);
    watch.note(step);
  }
  result.telemetry = watch.finish();
}

// A step's clocks depend on how long it takes, and that on its clocks: foreseen from the clocks at
// its start, then run at the mean clocks over that time. By how much the fleet's own time was
// foreseen too long is taken off the next step, so that it keeps to the timeline's.
void ModelBackend::run_step_in_time(const PhaseSteps& steps, std::size_t step, PhaseResult& result,
                                    Peaks peaks) {
  const std::size_t layers = result.mine.layers();
  const auto simulate = [&](std::span<const double> clocks) {
    const auto arrival = peaks.arrival_ns.subspan(step * layers, layers);
    const auto tokens = peaks.tokens.subspan(step * layers, layers);
    std::ranges::fill(arrival, 0);
    std::ranges::fill(tokens, 0);
    simulate_experts(steps, {step, step + 1}, clocks, result.mine, peaks);
    comm_.all_reduce_max(arrival);
    comm_.all_reduce_max(tokens);
    return step_seconds(step, layers, peaks);
  };
  const double foreseen_s = simulate(plant_->my_clocks());
  plant_->mark();
  const double ran_s = std::max(foreseen_s - ahead_s_, 0.0);
  plant_->run(ran_s);
  ahead_s_ += ran_s - simulate(plant_->my_mean_clocks());
  if (ahead_s_ < 0.0) {
    plant_->run(-std::exchange(ahead_s_, 0.0));
  }
}

// Some steps at a time: their slots are counted layer by layer, for the whole of an expert's
// replicas at once; then devices run in blocks, each through those steps, in the timeline's order.
// As many steps as leave what lies between in the cache.
void ModelBackend::simulate_experts(const PhaseSteps& steps, StepRange range,
                                    std::span<const double> clocks_mhz,
                                    timeline::Timeline& timeline, Peaks peaks) const {
  constexpr std::size_t kSlotsAtATime = std::size_t{1} << 17U;
  const std::vector<Worker> workers = this->workers(clocks_mhz);
  std::optional<SlotTokens> counter;
  SlotCounts counts;
  for (std::size_t first = range.first; first < range.last;) {
    const auto& placement = steps.placement_of(first);
    if (!counter || steps.placements.size() > 1) {
      counter.emplace(placement, mine_);
    }
    const auto slots = static_cast<std::size_t>(placement.slots_per_device);
    const std::size_t of_step =
        std::max<std::size_t>(1, timeline.layers() * workers.size() * slots);
    const std::size_t together = std::max<std::size_t>(1, kSlotsAtATime / of_step);
    const std::size_t last =
        steps.placements.size() > 1 ? first + 1 : std::min(range.last, first + together);
    whereabouts::enter_step(static_cast<std::int32_t>(first));
    counts = SlotCounts({last - first, timeline.layers(), workers.size() * slots});
    for (std::size_t step = first; step < last; ++step) {
      for (std::size_t layer = 0; layer < timeline.layers(); ++layer) {
        counter->count(layer, steps.loads.row(step, layer), counts.row(step - first, layer));
      }
    }
    run_devices(workers, steps, {first, last}, counts, timeline, peaks);
    first = last;
  }
}

void ModelBackend::run_devices(std::span<const Worker> workers, const PhaseSteps& steps,
                               StepRange range, const SlotCounts& counts,
                               timeline::Timeline& timeline, Peaks peaks) const {
  const std::size_t layers = timeline.layers();
  const std::size_t slots = workers.empty() ? 0 : counts.extent(2) / workers.size();
  const std::int64_t sent = (steps.tokens + devices_ - 1) / devices_ * model_.top_k;
  std::vector<SlotWork> works(layers);
  for (std::size_t device = 0; device < workers.size(); ++device) {
    for (std::size_t step = range.first; step < range.last; ++step) {
      for (std::size_t layer = 0; layer < layers; ++layer) {
        works[layer] =
            SlotWork::of(counts.row(step - range.first, layer).subspan(device * slots, slots));
      }
      run_device(workers[device], works, {steps.phase, step, steps.ran_before, device, sent},
                 timeline, peaks);
    }
  }
}

void ModelBackend::run_device(const Worker& worker, std::span<const SlotWork> works,
                              const DeviceStep& at, timeline::Timeline& timeline,
                              Peaks peaks) const {
  const auto tokens_row = timeline.tokens.row(at.device, at.step);
  const auto dispatch_row = timeline.dispatch_ns.row(at.device, at.step);
  const auto expert_row = timeline.expert_ns.row(at.device, at.step);
  const auto arrival_peak = peaks.arrival_ns.subspan(at.step * works.size(), works.size());
  const auto tokens_peak = peaks.tokens.subspan(at.step * works.size(), works.size());
  for (std::size_t layer = 0; layer < works.size(); ++layer) {
    const SlotWork& work = works[layer];
    const double z =
        worker.noise_sd > 0.0
            ? worker.noise[repetition(at.phase, at.ran_before + at.step, layer)].normal()
            : 0.0;
    const double time_ns = worker.cost.time_ns(work) * (1.0 + worker.noise_sd * z);
    const auto exchanged = std::max(at.sent, std::int64_t{work.tokens});
    const Nanoseconds dispatch = dispatch_.time_ns(exchanged);
    const Nanoseconds expert =
        work.tokens == 0 ? 0 : std::max<Nanoseconds>(1, to_nanoseconds(time_ns));
    tokens_row[layer] = work.tokens;
    dispatch_row[layer] = dispatch;
    expert_row[layer] = expert;
    arrival_peak[layer] = std::max(arrival_peak[layer], dispatch + expert);
    tokens_peak[layer] = std::max(tokens_peak[layer], exchanged);
  }
}

void ModelBackend::fill_waits(timeline::Timeline& timeline, Peaks peaks) const {
  const std::size_t calls = peaks.tokens.size();
  std::vector<Nanoseconds> start(calls);
  std::vector<Nanoseconds> combine(calls);
  Nanoseconds clock = 0;
  for (std::size_t i = 0; i < calls; ++i) {
    start[i] = clock;
    combine[i] = combine_.time_ns(peaks.tokens[i]);
    clock += peaks.arrival_ns[i] + combine[i];
  }
  for (std::size_t device = 0; device < timeline.devices(); ++device) {
    const auto dispatch = timeline.dispatch_ns.row(device);
    const auto expert = timeline.expert_ns.row(device);
    const auto arrival = timeline.arrival_ns.row(device);
    const auto wait = timeline.wait_ns.row(device);
    for (std::size_t i = 0; i < calls; ++i) {
      const Nanoseconds busy = dispatch[i] + expert[i];
      arrival[i] = start[i] + busy;
      wait[i] = peaks.arrival_ns[i] - busy;
    }
    std::ranges::copy(combine, timeline.combine_ns.row(device).begin());
  }
}

}  // namespace moevar::run
