#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

#include "base/tensor.hpp"
#include "placement/placement.hpp"
#include "placement/policies.hpp"
#include "placement/targets.hpp"

namespace moevar::placement {

namespace {

/// q, the fewest tokens worth an expert's transfer. Source: HarMoEny (arXiv 2506.12417;
/// sacs-epfl/HarMoEny, scheduler.py).
constexpr double kFewestTokens = 150.0;

/// The owner of each expert: where contiguous has its first slot.
std::size_t home_of(std::size_t expert, int slots_per_device) {
  return expert / static_cast<std::size_t>(slots_per_device);
}

/// One layer's tokens, [experts][devices], shifted from the devices that exceed their target most
/// to those that fall short of it most.
Matrix<double> schedule(const LayerProblem& problem, const std::vector<double>& targets) {
  const auto loads = problem.step(0);
  Matrix<double> tokens({loads.size(), targets.size()}, 0.0);
  std::vector<double> excess(targets.size());
  std::ranges::transform(targets, excess.begin(), std::negate<>{});
  for (std::size_t e = 0; e < loads.size(); ++e) {
    const auto home = home_of(e, problem.slots_per_device());
    tokens(e, home) = loads[e];
    excess[home] += loads[e];
  }
  while (true) {
    const auto full = static_cast<std::size_t>(std::ranges::max_element(excess) - excess.begin());
    const auto empty = static_cast<std::size_t>(std::ranges::min_element(excess) - excess.begin());
    std::size_t expert = 0;
    for (std::size_t e = 1; e < loads.size(); ++e) {
      expert = tokens(e, full) > tokens(expert, full) ? e : expert;
    }
    if (excess[full] <= 0.0 || tokens(expert, full) < kFewestTokens ||
        excess[empty] + kFewestTokens > 0.0) {
      return tokens;
    }
    // what is reached is set, not subtracted: rounding must not leave a rest to shift
    const double shift = std::min({tokens(expert, full), excess[full], -excess[empty]});
    tokens(expert, full) = shift == tokens(expert, full) ? 0.0 : tokens(expert, full) - shift;
    tokens(expert, empty) += shift;
    excess[full] = shift == excess[full] ? 0.0 : excess[full] - shift;
    excess[empty] = shift == -excess[empty] ? 0.0 : excess[empty] + shift;
  }
}

/// What a device holds in a layer, in the order of its slots, with the shares.
using Held = std::vector<std::pair<std::int32_t, double>>;

/// Its home experts, then those whose tokens came to it.
Held held_by(const LayerProblem& problem, const Matrix<double>& tokens, std::size_t device) {
  const auto loads = problem.step(0);
  const auto width = static_cast<std::size_t>(problem.slots_per_device());
  const auto share = [&](std::size_t e) {
    if (loads[e] > 0.0) {
      return tokens(e, device) / loads[e];
    }
    return device == home_of(e, problem.slots_per_device()) ? 1.0 : 0.0;
  };
  std::vector<bool> held(loads.size(), false);
  Held slots;
  for (std::size_t slot = device * width; slot < (device + 1) * width; ++slot) {
    const std::size_t e = slot % loads.size();
    if (!held[e]) {
      held[e] = true;
      slots.emplace_back(static_cast<std::int32_t>(e), share(e));
    }
  }
  for (std::size_t e = 0; e < loads.size(); ++e) {
    if (!held[e] && tokens(e, device) > 0.0) {
      slots.emplace_back(static_cast<std::int32_t>(e), share(e));
    }
  }
  return slots;
}

Placement plan(const Problem& problem, bool by_speed) {
  const auto layers = static_cast<std::size_t>(problem.layers());
  const auto devices = static_cast<std::size_t>(problem.devices);
  std::vector<std::vector<Held>> held(layers);
  std::size_t width = 1;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const LayerProblem part(problem, static_cast<int>(layer));
    const auto loads = part.step(0);
    const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
    const auto tokens =
        schedule(part, by_speed ? finish_targets(problem.speeds, total)
                                : std::vector<double>(devices, total / problem.devices));
    for (std::size_t d = 0; d < devices; ++d) {
      held[layer].push_back(held_by(part, tokens, d));
      width = std::max(width, held[layer].back().size());
    }
  }
  const std::array shape{layers, devices * width};
  Placement placement;
  placement.devices = problem.devices;
  placement.slots_per_device = static_cast<int>(width);
  placement.expert_of_slot = Matrix<std::int32_t>(shape);
  placement.share_of_slot = Matrix<double>(shape, 0.0);
  for (std::size_t layer = 0; layer < layers; ++layer) {
    for (std::size_t slot = 0; slot < devices * width; ++slot) {
      const auto& slots = held[layer][slot / width];
      const std::size_t i = slot % width;
      // a slot to spare repeats the device's first expert, which is at home: nothing to fetch
      placement.expert_of_slot(layer, slot) = i < slots.size() ? slots[i].first : slots[0].first;
      placement.share_of_slot(layer, slot) = i < slots.size() ? slots[i].second : 0.0;
    }
  }
  return placement;
}

}  // namespace

Placement plan_harmoeny(const Problem& step) { return plan(step, false); }

Placement plan_harmoeny_speed(const Problem& step) { return plan(step, true); }

}  // namespace moevar::placement
