#include "placement/placement.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::placement {

namespace {

void check_problem(const Problem& problem) {
  if (problem.devices < 1 || problem.slots_per_device < 1 || problem.layers() < 1) {
    throw InputError(fmt::format(
        "placement: {} devices with {} slots each and {} layers; at least one of each is needed",
        problem.devices, problem.slots_per_device, problem.layers()));
  }
  const int slots = problem.devices * problem.slots_per_device;
  if (slots != problem.experts()) {
    throw InputError(fmt::format(
        "placement: {} experts on {} devices × {} slots = {} slots; these policies place every "
        "expert once, so there must be as many slots as experts",
        problem.experts(), problem.devices, problem.slots_per_device, slots));
  }
  if (problem.speeds.size() != static_cast<std::size_t>(problem.devices)) {
    throw InputError(fmt::format("placement: {} speed models for {} devices; one each is needed",
                                 problem.speeds.size(), problem.devices));
  }
  for (const double load : problem.mean_loads.flat()) {
    if (!(load >= 0.0) || !std::isfinite(load)) {
      throw InputError(
          fmt::format("placement: a load of {} tokens; finite and >= 0 is needed", load));
    }
  }
}

/// device_of[expert] of one layer; the first device where an expert has replicas.
std::vector<int> device_of_expert(const Placement& placement, int layer) {
  const auto experts = placement.expert_of_slot.row(layer);
  std::vector<int> device_of(experts.size(), -1);
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    auto& device = device_of[static_cast<std::size_t>(experts[slot])];
    if (device < 0) {
      device = static_cast<int>(slot) / placement.slots_per_device;
    }
  }
  return device_of;
}

bool holds(const Placement& placement, int layer, int device, std::int32_t expert) {
  const auto slots = placement.expert_of_slot.row(layer).subspan(
      static_cast<std::size_t>(device) * static_cast<std::size_t>(placement.slots_per_device),
      static_cast<std::size_t>(placement.slots_per_device));
  return std::ranges::find(slots, expert) != slots.end();
}

}  // namespace

std::vector<double> device_tokens(const Placement& placement, int layer,
                                  std::span<const double> loads) {
  std::vector<double> tokens(static_cast<std::size_t>(placement.devices), 0.0);
  const auto experts = placement.expert_of_slot.row(layer);
  const auto shares = placement.share_of_slot.row(layer);
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    tokens[slot / static_cast<std::size_t>(placement.slots_per_device)] +=
        loads[static_cast<std::size_t>(experts[slot])] * shares[slot];
  }
  return tokens;
}

Placement solve(const Policy& policy, const Problem& problem) {
  check_problem(problem);
  const auto start = std::chrono::steady_clock::now();
  Placement placement;
  placement.policy = policy.name;
  placement.devices = problem.devices;
  placement.slots_per_device = problem.slots_per_device;
  placement.expert_of_slot = policy.assign(problem);
  placement.solve_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  placement.share_of_slot = Matrix<double>(placement.expert_of_slot.shape(), 1.0);
  for (int layer = 0; layer < problem.layers(); ++layer) {
    const auto loads = problem.mean_loads.row(layer);
    const auto tokens = device_tokens(placement, layer, loads);
    double slowest = 0.0;
    for (std::size_t d = 0; d < tokens.size(); ++d) {
      slowest = std::max(slowest, problem.speeds[d].time_us(tokens[d]));
    }
    placement.predicted_us.push_back(slowest);
    placement.lower_bound_us.push_back(lower_bound_us(loads, problem.speeds));
  }
  return placement;
}

void check_placement(const Placement& placement, int experts) {
  const auto fail = [&](int layer, const std::string& what) {
    throw CheckError(fmt::format("placement {}, layer {}: {}", placement.policy, layer, what));
  };
  for (int layer = 0; layer < placement.layers(); ++layer) {
    std::vector<double> share(static_cast<std::size_t>(experts), 0.0);
    for (int slot = 0; slot < placement.slots(); ++slot) {
      const auto expert = placement.expert_of_slot(layer, slot);
      if (expert < 0 || expert >= experts) {
        fail(layer, fmt::format("slot {} holds expert {} of {}", slot, expert, experts));
      }
      share[static_cast<std::size_t>(expert)] += placement.share_of_slot(layer, slot);
    }
    for (std::size_t expert = 0; expert < share.size(); ++expert) {
      if (std::abs(share[expert] - 1.0) > 1e-9) {
        fail(layer, fmt::format("the shares of expert {} sum to {}, not 1", expert, share[expert]));
      }
    }
  }
}

std::vector<Move> moves_between(const Placement& from, const Placement& to) {
  std::vector<Move> moves;
  for (int layer = 0; layer < to.layers(); ++layer) {
    const auto was_on = device_of_expert(from, layer);
    for (int slot = 0; slot < to.slots(); ++slot) {
      const auto expert = to.expert_of_slot(layer, slot);
      const int device = slot / to.slots_per_device;
      if (!holds(from, layer, device, expert)) {
        moves.push_back({layer, expert, was_on[static_cast<std::size_t>(expert)], device, slot});
      }
    }
  }
  return moves;
}

}  // namespace moevar::placement
