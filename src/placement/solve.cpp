#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"
#include "placement/placement.hpp"
#include "placement/replicas.hpp"

namespace moevar::placement {

namespace {

void check_loads(std::span<const double> loads) {
  for (const double load : loads) {
    if (!(load >= 0.0) || !std::isfinite(load)) {
      throw InputError(
          fmt::format("placement: a load of {} tokens; finite and >= 0 is needed", load));
    }
  }
}

void check_groups(const Problem& problem) {
  if (problem.groups < 1 || problem.experts() % problem.groups != 0) {
    throw InputError(fmt::format("placement: {} expert groups of {} experts; a divisor is needed",
                                 problem.groups, problem.experts()));
  }
  if (problem.nodes < 1 || problem.devices % problem.nodes != 0) {
    throw InputError(fmt::format("placement: {} nodes of {} devices; a divisor is needed",
                                 problem.nodes, problem.devices));
  }
}

void check_from(const Policy& policy, const Problem& problem) {
  const auto* from = problem.from;
  if (from != nullptr &&
      (from->devices != problem.devices || from->slots_per_device != problem.slots_per_device ||
       from->layers() != problem.layers())) {
    throw InputError(fmt::format(
        "placement: the present placement has {} layers on {} devices × {} slots, the new one {} "
        "on {} × {}; they must be the same",
        from->layers(), from->devices, from->slots_per_device, problem.layers(), problem.devices,
        problem.slots_per_device));
  }
  if (from != nullptr) {
    check_placement(*from, problem.experts());
  }
  if (problem.receive_budget >= 0 && (from == nullptr || !policy.keeps_budget)) {
    throw InputError(fmt::format(
        "placement: a budget of {} experts a device needs {}; policy {}", problem.receive_budget,
        from == nullptr ? "a placement to start from" : "a policy that can keep to it, as minmax",
        policy.name));
  }
}

void check_problem(const Policy& policy, const Problem& problem) {
  if (problem.devices < 1 || problem.slots_per_device < 1 || problem.layers() < 1 ||
      problem.experts() < 1) {
    throw InputError(fmt::format(
        "placement: {} devices with {} slots each, {} layers and {} "
        "experts; at least one of each is needed",
        problem.devices, problem.slots_per_device, problem.layers(), problem.experts()));
  }
  if (problem.slots() < problem.experts()) {
    throw InputError(fmt::format(
        "placement: {} experts on {} devices × {} slots = {} slots; every expert needs one",
        problem.experts(), problem.devices, problem.slots_per_device, problem.slots()));
  }
  if (problem.speeds.size() != static_cast<std::size_t>(problem.devices)) {
    throw InputError(fmt::format("placement: {} speed models for {} devices; one each is needed",
                                 problem.speeds.size(), problem.devices));
  }
  check_loads(problem.mean_loads.flat());
  if (problem.trace != nullptr) {
    const auto& shape = problem.trace->shape();
    if (shape[0] < 1 || shape[1] != problem.mean_loads.extent(0) ||
        shape[2] != problem.mean_loads.extent(1)) {
      throw InputError(fmt::format(
          "placement: a trace of {} steps × {} layers × {} experts beside mean loads of {} × {}; "
          "at least one step and the same layers and experts are needed",
          shape[0], shape[1], shape[2], problem.layers(), problem.experts()));
    }
    check_loads(problem.trace->flat());
  }
  check_groups(problem);
  check_from(policy, problem);
}

/// Predicts and bounds, over the trace's steps where there is one.
void judge(const Problem& problem, Placement& placement) {
  placement.predicted_us = layer_times_us(placement, problem);
  // a per-step plan may have slots of its own
  const bool known =
      problem.lower_bound_us != nullptr && placement.slots_per_device == problem.slots_per_device;
  placement.lower_bound_us =
      known ? *problem.lower_bound_us : lower_bounds(problem, placement.slots_per_device);
}

/// Load of every slot of a layer, replicas sharing evenly.
std::vector<double> even_loads(std::span<const double> loads,
                               std::span<const std::int32_t> expert_of_slot) {
  std::vector<double> shares(expert_of_slot.size());
  share_evenly(expert_of_slot, static_cast<int>(loads.size()), shares);
  for (std::size_t slot = 0; slot < shares.size(); ++slot) {
    shares[slot] *= loads[static_cast<std::size_t>(expert_of_slot[slot])];
  }
  return shares;
}

Placement assign_layers(const Policy& policy, const Problem& problem) {
  const std::array shape{static_cast<std::size_t>(problem.layers()),
                         static_cast<std::size_t>(problem.slots())};
  constexpr double kUnset = -1.0;
  Placement placement;
  placement.devices = problem.devices;
  placement.slots_per_device = problem.slots_per_device;
  placement.expert_of_slot = Matrix<std::int32_t>(shape);
  placement.share_of_slot = Matrix<double>(shape, kUnset);
  for (int layer = 0; layer < problem.layers(); ++layer) {
    const LayerProblem part(problem, layer);
    const LayerSlots slots{placement.expert_of_slot.row(layer), placement.share_of_slot.row(layer)};
    policy.assign(part, slots);
    if (slots.share.front() != kUnset) {
      continue;
    }
    if (problem.slots() == problem.experts()) {
      std::ranges::fill(slots.share, 1.0);
      continue;
    }
    if (!policy.keeps_duplicates) {
      auto loads = even_loads(part.loads(), slots.expert);
      separate_replicas(problem.slots_per_device, slots.expert, loads);
    }
    share_evenly(slots.expert, problem.experts(), slots.share);
  }
  return placement;
}

}  // namespace

Placement solve(const Policy& policy, const Problem& problem) {
  check_problem(policy, problem);
  if (policy.per_step() && problem.trace != nullptr && problem.trace->extent(0) > 1) {
    throw InputError(fmt::format(
        "placement: {} plans every step anew, so it has no one placement for {} steps; a study "
        "runs it, and minmax plans in advance",
        policy.name, problem.trace->extent(0)));
  }
  const auto start = std::chrono::steady_clock::now();
  auto placement = policy.per_step() ? policy.plan_step(problem) : assign_layers(policy, problem);
  placement.solve_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  placement.policy = policy.name;
  judge(problem, placement);
  return placement;
}

std::vector<Placement> solve_steps(const Policy& policy, const Problem& problem) {
  std::vector<Placement> placements;
  if (!policy.per_step() || problem.trace == nullptr) {
    placements.push_back(solve(policy, problem));
    return placements;
  }
  check_problem(policy, problem);
  for (std::size_t step = 0; step < problem.trace->extent(0); ++step) {
    Matrix<double> loads(problem.mean_loads.shape());
    std::ranges::copy(problem.trace->row(step), loads.flat().begin());
    const Problem alone{loads,
                        problem.speeds,
                        problem.devices,
                        problem.slots_per_device,
                        problem.seed,
                        nullptr,
                        problem.groups,
                        problem.nodes,
                        problem.even_shares,
                        problem.n_ref_printed,
                        problem.from,
                        problem.receive_budget};
    placements.push_back(solve(policy, alone));
  }
  return placements;
}

}  // namespace moevar::placement
