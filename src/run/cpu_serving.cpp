#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "run/cpu_backend.hpp"
#include "run/slot_routing.hpp"
#include "system/affinity.hpp"
#include "timeline/clock.hpp"

namespace moevar::run {

namespace {

constexpr std::size_t kRoutes = 16;
constexpr std::size_t kTimedSteps = 9;  // odd: the median is one of them
constexpr int kFewestRounds = 3;
constexpr int kMostRounds = 32;
constexpr double kCalibrationSeconds = 2.0;

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }

}  // namespace

std::size_t CpuBackend::tokens_each(std::int64_t tokens) const {
  const auto devices = static_cast<std::int64_t>(fleet_.size());
  return static_cast<std::size_t>(
      std::min<std::int64_t>((tokens + devices - 1) / devices, tokens_per_device_));
}

void CpuBackend::draw_routes(const ServingSetup& setup) {
  const std::int64_t tokens = std::int64_t{tokens_per_device_} * static_cast<int>(fleet_.size());
  const auto layers = size_of(setup.placement.layers());
  const std::size_t rows = static_cast<std::size_t>(tokens) * size_of(model_.top_k);
  std::int64_t most_received = 0;
  routes_.clear();
  check_routes_fit(kRoutes * 2 * sizeof(std::int32_t) * layers * rows);
  for (std::size_t i = 0; i < kRoutes; ++i) {
    auto& route = routes_.emplace_back(
        Route{Matrix<std::int32_t>({layers, rows}), Matrix<std::int32_t>({layers, rows})});
    for (int layer = 0; layer < setup.placement.layers(); ++layer) {
      const auto experts =
          setup.routing.token_experts(setup.first_step + static_cast<int>(i), layer, tokens);
      const auto slots = route.slots.row(layer);
      std::ranges::copy(experts.flat(), route.experts.row(layer).begin());
      choose_slots(setup.placement, layer, experts.flat(), slots);
      const auto received = std::ranges::count_if(slots, [&](std::int32_t slot) {
        return slot / setup.placement.slots_per_device == comm_.rank();
      });
      most_received = std::max<std::int64_t>(most_received, received);
    }
  }
  if (active()) {
    layer_->reserve(most_received);
  }
}

void CpuBackend::check_routes_fit(std::size_t bytes) const {
  const auto node = comm_.split_by_node();
  mpi::on_all(comm_, [&] {
    const auto available = affinity::available_memory_bytes() / size_of(node.size());
    if (bytes > available) {
      throw EnvironmentError(fmt::format(
          "routes of {} steps with {} tokens a device need {} MiB on each rank of host {}, which "
          "has {} MiB for each; a smaller serving.token_budget, or fewer layers",
          kRoutes, tokens_per_device_, bytes >> 20U, affinity::host_name(), available >> 20U));
    }
  });
}

void CpuBackend::run_routed(std::size_t route, std::size_t tokens, timeline::Stamps& stamps) {
  const std::size_t of_device = size_of(tokens_per_device_) * size_of(model_.top_k);
  const std::size_t first = size_of(devices_.rank()) * of_device;
  const std::size_t count = tokens * size_of(model_.top_k);
  devices_.barrier();
  stamps.entered[0] = timeline::monotonic_raw_ns();
  for (int layer = 0; layer < placement_->layers(); ++layer) {
    const auto& from = routes_[route];
    const auto readings = layer_->run(layer, from.experts.row(layer).subspan(first, count),
                                      from.slots.row(layer).subspan(first, count), *device_);
    stamps.dispatched(0, layer) = readings.dispatched;
    stamps.arrived(0, layer) = readings.arrived;
    stamps.exited(0, layer) = readings.exited;
    stamps.tokens(0, layer) = readings.tokens;
  }
}

PhaseResult CpuBackend::serve(const PhaseSteps& step) {
  const auto layers = size_of(placement_->layers());
  PhaseResult result;
  result.mine = timeline::Timeline(0, 1, layers);
  if (active()) {
    timeline::Stamps stamps(1, layers);
    run_routed(static_cast<std::size_t>(step.first_step) % kRoutes, tokens_each(step.tokens),
               stamps);
    result.mine = timeline::timeline_of(devices_, stamps, serving_clock_);
  }
  result.reference_error = serving_error_;
  result.clock_residual_ns = serving_residual_ns_;
  result.totals = timeline::reduce_totals(comm_, timeline::totals_of(result.mine));
  note_clock(clock_reading_, result);
  return result;
}

// The whole of serve() is timed, what totals take included, for all of it is time of the run.
void CpuBackend::time_exchange() {
  exchange_grid_.clear();
  exchange_times_.clear();
  const auto devices = static_cast<double>(fleet_.size());
  const workload::Loads none;
  for (int tokens = 1;; tokens = std::min(2 * tokens, tokens_per_device_)) {
    std::array<double, kTimedSteps> without_us{};
    for (std::size_t i = 0; i < kTimedSteps + 2; ++i) {  // two to warm up
      comm_.barrier();
      const double start_s = MPI_Wtime();
      const auto totals = serve({.first_step = static_cast<std::int64_t>(i),
                                 .tokens = tokens * static_cast<std::int64_t>(fleet_.size()),
                                 .routing = *serving_routing_,
                                 .loads = none,
                                 .placements = {}})
                              .totals;
      double experts_us = 0.0;
      for (const Nanoseconds slowest : totals.expert_max_ns.flat()) {
        experts_us += ns_to_us(slowest);
      }
      const double all_us = 1e6 * (MPI_Wtime() - start_s);
      without_us[i % kTimedSteps] = (all_us - experts_us) / placement_->layers();
    }
    std::ranges::sort(without_us);
    exchange_grid_.push_back(devices * tokens);
    exchange_times_.push_back(without_us[kTimedSteps / 2]);
    if (tokens == tokens_per_device_) {
      break;
    }
  }
  comm_.broadcast(std::span(exchange_times_));
}

void CpuBackend::start_serving(const ServingSetup& setup) {
  serving_routing_ = &setup.routing;
  draw_routes(setup);
  serving_error_ = 0.0;
  excess_ = {};
  calibrated_ = 0;
  if (active()) {
    const auto clock = timeline::synchronise(devices_);
    serving_clock_ = clock.fit;
    serving_residual_ns_ = clock.fleet_residual_ns;
    const workload::Loads none;
    serving_error_ =
        verify({.phase = setup.phase,
                .first_step = setup.first_step,
                .tokens = std::int64_t{tokens_per_device_} * static_cast<int>(fleet_.size()),
                .routing = setup.routing,
                .loads = none,
                .placements = std::span(&setup.placement, 1)});
  }
  comm_.all_reduce_max(std::span(&serving_residual_ns_, 1));
  check_reference(serving_error_, setup.phase);
  time_exchange();
}

double CpuBackend::exchange_us(std::int64_t tokens) const {
  const auto n = static_cast<double>(tokens);
  const auto above = std::ranges::lower_bound(exchange_grid_, n);
  const auto last = static_cast<std::ptrdiff_t>(exchange_grid_.size()) - 1;
  const auto at = std::min(above - exchange_grid_.begin(), last);
  const auto i = static_cast<std::size_t>(at);
  if (i == 0 || exchange_grid_[i] <= n) {
    return exchange_times_[i];
  }
  const double part = (n - exchange_grid_[i - 1]) / (exchange_grid_[i] - exchange_grid_[i - 1]);
  return std::lerp(exchange_times_[i - 1], exchange_times_[i], part);
}

double CpuBackend::experts_us(const PhaseSteps& step, const placement::SpeedModels& speeds) const {
  const auto& route = routes_[static_cast<std::size_t>(step.first_step) % kRoutes];
  const std::size_t of_device = size_of(tokens_per_device_) * size_of(model_.top_k);
  const std::size_t count = tokens_each(step.tokens) * size_of(model_.top_k);
  std::vector<double> tokens(fleet_.size());
  double total_us = 0.0;
  for (int layer = 0; layer < placement_->layers(); ++layer) {
    std::ranges::fill(tokens, 0.0);
    for (std::size_t device = 0; device < fleet_.size(); ++device) {
      for (const auto slot : route.slots.row(layer).subspan(device * of_device, count)) {
        tokens[size_of(slot / placement_->slots_per_device)] += 1.0;
      }
    }
    double slowest_us = 0.0;
    for (std::size_t device = 0; device < fleet_.size(); ++device) {
      slowest_us = std::max(slowest_us, speeds[device].time_us(tokens[device]));
    }
    total_us += slowest_us;
  }
  return total_us;
}

// Sizes take turns, so that a spell in which the machine is slow falls on all of them alike.
void CpuBackend::calibrate(const placement::SpeedModels& speeds) {
  const workload::Loads none;
  const double begin_s = MPI_Wtime();
  bool enough = false;
  for (int round = 0; !enough; ++round) {
    for (int tokens = 1; tokens <= tokens_per_device_;
         tokens = tokens < tokens_per_device_ ? std::min(2 * tokens, tokens_per_device_)
                                              : tokens + 1) {
      const PhaseSteps step{.first_step = calibrated_++,
                            .tokens = tokens * static_cast<std::int64_t>(fleet_.size()),
                            .routing = *serving_routing_,
                            .loads = none,
                            .placements = {}};
      comm_.barrier();
      const double start_s = MPI_Wtime();
      (void)serve(step);
      double excess_us = 1e6 * (MPI_Wtime() - start_s) - experts_us(step, speeds);
      comm_.broadcast(std::span(&excess_us, 1));
      excess_.add(static_cast<double>(step.tokens), excess_us);
    }
    const bool out_of_time = MPI_Wtime() - begin_s >= kCalibrationSeconds;
    const int rounds = round + 1;
    std::int64_t stop = rounds >= kMostRounds || (rounds >= kFewestRounds && out_of_time) ? 1 : 0;
    comm_.broadcast(std::span(&stop, 1));
    enough = stop != 0;
  }
}

std::optional<double> CpuBackend::foresee_us(const PhaseSteps& step,
                                             const placement::SpeedModels& speeds) const {
  const double u =
      random_stream(seed_, Stream::step_excess)[static_cast<std::uint64_t>(step.phase)]
                                               [static_cast<std::uint64_t>(step.first_step)]
                                                   .uniform();
  return std::max(experts_us(step, speeds) + excess_.at(static_cast<double>(step.tokens), u), 0.0);
}

}  // namespace moevar::run
