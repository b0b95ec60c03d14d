#include "placement/placement.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::placement {

namespace {

/// Where every expert of a layer lies: the first device where it has replicas.
std::vector<int> device_of_expert(const Placement& placement, int layer, std::size_t experts) {
  std::vector<int> device_of(experts, -1);
  const auto slots = placement.expert_of_slot.row(layer);
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    auto& device = device_of[static_cast<std::size_t>(slots[slot])];
    if (device < 0) {
      device = static_cast<int>(slot) / placement.slots_per_device;
    }
  }
  return device_of;
}

/// Whether one of the first `slots` slots of a device has that expert.
bool holds(const Placement& placement, int layer, int device, std::int32_t expert, int slots) {
  const auto there = placement.expert_of_slot.row(layer).subspan(
      static_cast<std::size_t>(device) * static_cast<std::size_t>(placement.slots_per_device),
      static_cast<std::size_t>(slots));
  return std::ranges::find(there, expert) != there.end();
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

double layer_time_us(const Placement& placement, int layer, std::span<const double> loads,
                     const SpeedModels& speeds) {
  const auto tokens = device_tokens(placement, layer, loads);
  double slowest = 0.0;
  for (std::size_t d = 0; d < tokens.size(); ++d) {
    slowest = std::max(slowest, speeds[d].time_us(tokens[d]));
  }
  return slowest;
}

std::vector<double> layer_times_us(const Placement& placement, const Problem& problem) {
  std::vector<double> times;
  for (int layer = 0; layer < problem.layers(); ++layer) {
    const LayerProblem part(problem, layer);
    double time = 0.0;
    for (int step = 0; step < part.steps(); ++step) {
      time += layer_time_us(placement, layer, part.step(step), problem.speeds);
    }
    times.push_back(time / part.steps());
  }
  return times;
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
      const double part = placement.share_of_slot(layer, slot);
      if (!(part >= 0.0)) {
        fail(layer, fmt::format("slot {} has a share of {}", slot, part));
      }
      share[static_cast<std::size_t>(expert)] += part;
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
    const auto row = to.expert_of_slot.row(layer);
    const auto experts = static_cast<std::size_t>(*std::ranges::max_element(row)) + 1;
    const auto was_on = device_of_expert(from, layer, experts);
    for (int slot = 0; slot < to.slots(); ++slot) {
      const auto expert = to.expert_of_slot(layer, slot);
      const int device = slot / to.slots_per_device;
      if (!holds(from, layer, device, expert, from.slots_per_device) &&
          !holds(to, layer, device, expert, slot % to.slots_per_device)) {
        moves.push_back({layer, expert, was_on[static_cast<std::size_t>(expert)], device, slot});
      }
    }
  }
  return moves;
}

}  // namespace moevar::placement
