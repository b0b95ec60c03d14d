#include "run/cpu_backend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "run/cpu_migration.hpp"
#include "run/dense_reference.hpp"
#include "run/slot_routing.hpp"
#include "system/affinity.hpp"
#include "system/whereabouts.hpp"
#include "timeline/clock.hpp"

namespace moevar::run {

namespace {

constexpr double kLargestError = 1e-4;       // of an output against the dense reference
constexpr std::int64_t kVerifiedTokens = 8;  // per device and verified layer
constexpr std::size_t kProfileBytes = 64U << 20U;

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }

/// Whether these sizes make a layer that this launch can run. All ranks find the same.
void check_sizes(const mpi::Communicator& comm, const study::ModelShape& model, int devices,
                 int tokens_per_device) {
  if (devices < 1 || tokens_per_device < 1 || model.hidden < 1 || model.intermediate < 1 ||
      model.top_k < 1 || model.top_k > model.experts) {
    throw InputError(fmt::format(
        "cpu fleet: {} devices with {} tokens each, hidden {}, intermediate {}, top {} of {} "
        "experts; all must be at least 1, and top_k at most experts",
        devices, tokens_per_device, model.hidden, model.intermediate, model.top_k, model.experts));
  }
  const double values = 3.0 * model.hidden * model.intermediate;
  if (values > std::numeric_limits<int>::max()) {
    throw EnvironmentError(fmt::format(
        "cpu fleet: an expert of {} × {} has {:.0f} weights; MPI counts them in an int, so {} is "
        "the most",
        model.hidden, model.intermediate, values, std::numeric_limits<int>::max()));
  }
  if (devices > comm.size()) {
    throw EnvironmentError(fmt::format(
        "study asks for {} cpu devices, started with {} rank{}; start it with mpirun -np {}",
        devices, comm.size(), comm.size() == 1 ? "" : "s", devices));
  }
}

void check_condition(const study::Condition& condition) {
  if (condition.power_cap_w || condition.heat != study::Heat::soaked) {
    throw InputError(fmt::format(
        "cpu devices take no {}; caps and heat need a GPU or a modelled one",
        condition.power_cap_w ? fmt::format("power cap ({} W)", *condition.power_cap_w)
                              : fmt::format("heat (\"{}\")", study::to_string(condition.heat))));
  }
}

/// bind_cpu_fleet once the sizes are known to be right.
std::vector<DeviceIdentity> checked_fleet(const mpi::Communicator& comm,
                                          const study::ModelShape& model, int devices,
                                          int tokens_per_device) {
  mpi::on_root(comm, [&] { check_sizes(comm, model, devices, tokens_per_device); });
  return fleet::bind_cpu_fleet(comm, devices);
}

}  // namespace

CpuBackend::CpuBackend(const mpi::Communicator& comm, const study::ModelShape& model,
                       std::uint64_t seed, int devices, int tokens_per_device,
                       int redundant_experts, Sensors sensors,
                       study::ProfiledDevices profiled_devices)
    : comm_(comm),
      model_(model),
      seed_(seed),
      tokens_per_device_(tokens_per_device),
      fleet_(checked_fleet(comm, model, devices, tokens_per_device)),
      devices_(comm.split(comm.rank() < devices ? 0 : -1)),
      sensors_(std::move(sensors)),
      profiled_devices_(profiled_devices) {
  if (sensors_.plant) {
    keeper_.emplace(*sensors_.plant, sensors_.caps, sensors_.source, sensors_.heat);
  }
  const int slots = model.experts + redundant_experts;
  mpi::on_all(comm_, [&] { check_memory(model.layers, (slots + devices - 1) / devices); });
  clock_reading_ = worst_of(comm_, active(), timeline::time_clock_reading());
}

DeviceRange CpuBackend::mine() const {
  const auto devices = static_cast<DeviceId>(fleet_.size());
  const DeviceId begin = std::min<DeviceId>(comm_.rank(), devices);
  return {begin, std::min<DeviceId>(begin + 1, devices)};
}

std::string CpuBackend::sync() const {
  return "ranks of a node share the clock (checked), nodes by an HCA3-like tree before and after "
         "each phase; a barrier starts a step, the last exit a layer";
}

expert_ffn::Shape CpuBackend::expert_shape() const noexcept {
  return {size_of(model_.hidden), size_of(model_.intermediate)};
}

void CpuBackend::check_memory(int layers, int slots_per_device) const {
  if (!active()) {
    return;
  }
  const auto& me = fleet_[size_of(comm_.rank())];
  const auto neighbours = static_cast<std::size_t>(
      std::max<std::ptrdiff_t>(std::ranges::count(fleet_, me.node, &DeviceIdentity::node), 1));
  // one more layer than there is: arriving experts lie beside those that they replace
  const std::size_t needed =
      fleet::expert_bytes(expert_shape()) * size_of(layers + 1) * size_of(slots_per_device) +
      CpuLayer::bytes(model_, layers, tokens_per_device_);
  const std::size_t available = affinity::available_memory_bytes() / neighbours;
  if (needed > available) {
    throw EnvironmentError(fmt::format(
        "{} layers of {} experts of {} × {} need {} MiB on each cpu device, host {} has {} MiB for "
        "each of its {}; fewer layers, smaller experts or more nodes are needed",
        layers, slots_per_device, model_.hidden, model_.intermediate, needed >> 20U, me.host,
        available >> 20U, neighbours));
  }
}

void CpuBackend::enter(const study::Condition& condition) {
  if (keeper_) {
    keeper_->enter(condition);
  } else {
    check_condition(condition);
  }
}

timeline::FleetState CpuBackend::settle() {
  return keeper_ ? keeper_->settle() : unobserved(fleet_.size());
}

ProfileTimes CpuBackend::time_experts(fleet::CpuDevice& device, const ProfilePlan& plan) {
  const std::size_t hidden = expert_shape().hidden;
  const auto most_rows = static_cast<std::size_t>(plan.grid.back());
  std::vector<float> x(most_rows * hidden);
  std::vector<float> y(x.size());
  fleet::fill_activations(seed_, 0, hidden, x);
  std::vector<std::int64_t> rows(size_of(device.slots()));
  int layer = 0;
  return time_profile(devices_, plan, devices_.rank(), 1, fleet_.size(),
                      [&](std::span<const std::size_t> lanes, std::size_t point) {
                        std::ranges::fill(rows, std::llround(plan.grid[point]) / device.slots());
                        const Nanoseconds start = timeline::monotonic_raw_ns();
                        device.run_experts(layer, rows, x, y);
                        const double us = ns_to_us(timeline::monotonic_raw_ns() - start);
                        layer =
                            (layer + 1) % device.layers();  // other weights each time, as in a step
                        return std::vector<double>(lanes.size(), us);
                      });
}

placement::SpeedModels CpuBackend::profile(int slots, double max_tokens,
                                           std::span<const DeviceId> devices) {
  // A tile of 1: BLAS works on a core in strips of a few rows, so time has no steps to sit between.
  const ProfilePlan plan{placement::profile_grid(slots, 1, max_tokens),
                         profiled_devices_,
                         {devices.begin(), devices.end()}};
  ProfileTimes times;
  if (active() && device_ != nullptr && device_->slots() == slots) {
    times = time_experts(*device_, plan);
  } else if (active()) {
    // enough layers that weights come from memory rather than from a cache, as in a step
    const std::size_t layer_bytes = fleet::expert_bytes(expert_shape()) * size_of(slots);
    const int layers =
        std::clamp(static_cast<int>(kProfileBytes / layer_bytes), 1, std::max(model_.layers, 1));
    fleet::CpuDevice device(expert_shape(), seed_, layers, slots);
    std::vector<std::int32_t> experts(size_of(slots));
    for (int layer = 0; layer < layers; ++layer) {
      std::iota(experts.begin(), experts.end(), comm_.rank() * slots);
      device.load(layer, experts);
    }
    times = time_experts(device, plan);
  }
  return models_of(comm_, plan, times, fleet_.size());
}

void CpuBackend::load(const placement::Placement& placement) {
  const int slots = placement.slots_per_device;
  mpi::on_all(comm_, [&] { check_memory(placement.layers(), slots); });
  if (!active()) {
    return;
  }
  device_ = std::make_unique<fleet::CpuDevice>(expert_shape(), seed_, placement.layers(), slots);
  for (int layer = 0; layer < placement.layers(); ++layer) {
    device_->load(layer, placement.expert_of_slot.row(layer).subspan(
                             size_of(comm_.rank()) * size_of(slots), size_of(slots)));
  }
  layer_ = std::make_unique<CpuLayer>(devices_, model_, seed_, placement.layers(),
                                      tokens_per_device_, slots);
}

Migration CpuBackend::move_to(const placement::Placement& placement) {
  if (size_of(placement.devices) != fleet_.size() ||
      (placement_ && placement_->expert_of_slot.shape() != placement.expert_of_slot.shape())) {
    throw InputError(fmt::format(
        "placement of {} layers on {} devices × {} slots; this fleet has {} devices, and layers "
        "and slots stay as they were first",
        placement.layers(), placement.devices, placement.slots_per_device, fleet_.size()));
  }
  Migration migration;
  if (placement_) {
    mpi::on_all(comm_, [&] {
      if (active()) {
        migration = move_experts(devices_, *device_, *placement_, placement);
      }
    });
    comm_.all_reduce_max(std::span(&migration.time_ms, 1));
    comm_.all_reduce_max(std::span(&migration.moved_experts, 1));
    comm_.all_reduce_max(std::span(&migration.bytes, 1));
  } else {
    load(placement);
  }
  placement_ = placement;
  return migration;
}

void CpuBackend::check_steps(const PhaseSteps& steps) const {
  if (steps.placements.size() != 1) {
    throw CheckError(fmt::format(
        "cpu fleet: {} placements for one phase; experts do not move from step to step here",
        steps.placements.size()));
  }
  if (!placement_ || placement_->expert_of_slot != steps.placements.front().expert_of_slot) {
    throw CheckError("cpu fleet: steps with a placement to which the experts were not moved");
  }
  const auto tokens = static_cast<std::int64_t>(fleet_.size()) * tokens_per_device_;
  if (steps.tokens != tokens) {
    throw CheckError(fmt::format("cpu fleet: steps of {} tokens; {} devices hold {}", steps.tokens,
                                 fleet_.size(), tokens));
  }
}

void CpuBackend::route(const PhaseSteps& steps, std::int64_t step) {
  const auto layers = size_of(placement_->layers());
  const std::size_t rows = size_of(tokens_per_device_) * size_of(model_.top_k);
  if (route_.experts.empty()) {
    route_ = {Matrix<std::int32_t>({layers, rows}), Matrix<std::int32_t>({layers, rows})};
  }
  const std::size_t first = size_of(devices_.rank()) * rows;
  std::vector<std::int32_t> slots;
  std::int64_t most_received = 0;
  for (int layer = 0; layer < placement_->layers(); ++layer) {
    const auto experts = steps.routing.token_experts(step, layer, steps.tokens);
    slots.resize(experts.size());
    choose_slots(steps.placements.front(), layer, experts.flat(), slots);
    std::ranges::copy(experts.flat().subspan(first, rows), route_.experts.row(layer).begin());
    std::ranges::copy(std::span(slots).subspan(first, rows), route_.slots.row(layer).begin());
    const auto received = std::ranges::count_if(slots, [&](std::int32_t slot) {
      return slot / placement_->slots_per_device == devices_.rank();
    });
    most_received = std::max<std::int64_t>(most_received, received);
  }
  layer_->reserve(most_received);
}

void CpuBackend::run_step(const PhaseSteps& steps, std::int64_t step, timeline::Stamps* stamps,
                          std::size_t row) {
  whereabouts::enter_step(static_cast<std::int32_t>(step));
  route(steps, step);
  devices_.barrier();
  const double start = MPI_Wtime();
  const Nanoseconds entered = timeline::monotonic_raw_ns();
  for (int layer = 0; layer < placement_->layers(); ++layer) {
    const auto readings =
        layer_->run(layer, route_.experts.row(layer), route_.slots.row(layer), *device_);
    if (stamps != nullptr) {
      stamps->dispatched(row, layer) = readings.dispatched;
      stamps->arrived(row, layer) = readings.arrived;
      stamps->exited(row, layer) = readings.exited;
      stamps->tokens(row, layer) = readings.tokens;
    }
  }
  if (stamps != nullptr) {
    stamps->entered[row] = entered;
    step_seconds_.push_back(MPI_Wtime() - start);
  }
}

double CpuBackend::verify(const PhaseSteps& steps) {
  const auto hidden = size_of(model_.hidden);
  const auto top_k = size_of(model_.top_k);
  const std::int64_t count = std::min<std::int64_t>(kVerifiedTokens, tokens_per_device_);
  const int last = placement_->layers() - 1;
  double worst = 0.0;
  route(steps, steps.first_step);
  for (const int layer : {0, last}) {
    const auto experts = route_.experts.row(layer);
    layer_->run(layer, experts, route_.slots.row(layer), *device_);
    std::vector<std::int64_t> tokens;
    std::vector<std::int32_t> their_experts;
    std::vector<float> outputs;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto mine = static_cast<std::size_t>(i * tokens_per_device_ / count);
      tokens.push_back(std::int64_t{devices_.rank()} * tokens_per_device_ +
                       static_cast<std::int64_t>(mine));
      const auto ids = experts.subspan(mine * top_k, top_k);
      const auto row = layer_->outputs().subspan(mine * hidden, hidden);
      their_experts.insert(their_experts.end(), ids.begin(), ids.end());
      outputs.insert(outputs.end(), row.begin(), row.end());
    }
    const auto expected = dense_reference(model_, seed_, layer, tokens, their_experts);
    worst = std::max(worst, largest_error(outputs, expected, hidden));
  }
  return worst;
}

PhaseClock CpuBackend::measure(const PhaseSteps& steps, PhaseResult& result) {
  const std::size_t count = steps.loads.extent(0);
  timeline::Stamps stamps(count, size_of(placement_->layers()));
  const auto before = timeline::synchronise(devices_);
  for (std::size_t i = 0; i < count; ++i) {
    run_step(steps, steps.first_step + static_cast<std::int64_t>(i), &stamps, i);
  }
  const auto after = timeline::synchronise(devices_);
  const auto fit = timeline::between(before.fit, after.fit);
  result.mine = timeline::timeline_of(devices_, stamps, fit);
  result.clock_residual_ns = std::max(before.fleet_residual_ns, after.fleet_residual_ns);
  return {fit, fit.to_other(stamps.arrived(0, 0)) - result.mine.arrival_ns(0, 0, 0)};
}

void CpuBackend::check_reference(double& error, int phase) const {
  mpi::on_all(comm_, [&] {
    if (error > kLargestError) {
      throw CheckError(
          fmt::format("phase {}: outputs of device {} differ from the dense reference by {:.2g}; "
                      "at most {:.0e} is right",
                      phase, comm_.rank(), error, kLargestError));
    }
  });
  comm_.all_reduce_max(std::span(&error, 1));
}

PhaseResult CpuBackend::run(const PhaseSteps& steps) {
  check_steps(steps);
  PhaseResult result;
  result.mine =
      timeline::Timeline(0, steps.loads.extent(0), size_of(steps.placements.front().layers()));
  step_seconds_.clear();
  if (active()) {
    for (int i = steps.warmup_steps; i > 0; --i) {
      run_step(steps, std::max<std::int64_t>(steps.first_step - i, 0), nullptr, 0);
    }
    if (steps.ran_before == 0) {
      result.reference_error = verify(steps);
    } else {
      run_step(steps, steps.first_step - 1, nullptr, 0);  // what came between has cooled caches
    }
  }
  check_reference(result.reference_error, steps.phase);
  if (keeper_) {
    measure_observed(comm_, sensors_, active(), result, [&] { return measure(steps, result); });
  } else if (active()) {
    (void)measure(steps, result);
  }
  comm_.all_reduce_max(std::span(&result.telemetry.polling_s, 1));
  comm_.all_reduce_max(std::span(&result.clock_residual_ns, 1));
  result.totals = timeline::reduce_totals(comm_, timeline::totals_of(result.mine));
  note_clock(clock_reading_, result);
  return result;
}

Tensor<float, 3> CpuBackend::outputs(const PhaseSteps& steps, std::int64_t step) {
  check_steps(steps);
  if (!active()) {
    return {};
  }
  const auto hidden = size_of(model_.hidden);
  Tensor<float, 3> all({size_of(placement_->layers()), size_of(tokens_per_device_), hidden});
  route(steps, step);
  for (int layer = 0; layer < placement_->layers(); ++layer) {
    layer_->run(layer, route_.experts.row(layer), route_.slots.row(layer), *device_);
    std::ranges::copy(layer_->outputs(), all.row(layer).begin());
  }
  return all;
}

}  // namespace moevar::run
