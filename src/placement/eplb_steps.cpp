#include <algorithm>
#include <numeric>
#include <vector>

#include "base/tensor.hpp"
#include "placement/copy_order.hpp"
#include "placement/deepseek_packing.hpp"
#include "placement/nodes.hpp"
#include "placement/policies.hpp"
#include "placement/snake.hpp"

namespace moevar::placement {

namespace {

/// The experts of one node while redundant slots are spent on them: per step the load per copy of
/// every expert, and the two largest.
class StepMaxima {
 public:
  StepMaxima(const LayerProblem& problem, std::span<const std::uint32_t> experts)
      : loads_({static_cast<std::size_t>(problem.steps()), experts.size()}),
        per_copy_(loads_),
        top_(loads_.extent(0)),
        copies_(experts.size(), 1),
        total_(experts.size(), 0.0) {
    for (std::size_t t = 0; t < top_.size(); ++t) {
      const auto step = problem.step(static_cast<int>(t));
      for (std::size_t i = 0; i < experts.size(); ++i) {
        loads_(t, i) = per_copy_(t, i) = step[experts[i]];
        total_[i] += loads_(t, i);
      }
      find_top(t);
    }
  }

  [[nodiscard]] int copies(std::size_t i) const noexcept { return copies_[i]; }
  [[nodiscard]] double load_per_copy(std::size_t i) const noexcept {
    return total_[i] / static_cast<double>(top_.size()) / copies_[i];
  }

  /// The expert whose next copy lowers the sum of the steps' maxima the most; where none does
  /// (steps with two experts at the top), the one with the largest load per copy. Experts with
  /// `most` copies stand back while another has fewer. The lower expert of equals.
  [[nodiscard]] std::size_t next_to_copy(int most) const {
    std::vector<double> gain(copies_.size(), 0.0);
    for (std::size_t t = 0; t < top_.size(); ++t) {
      const auto& top = top_[t];
      const double after = loads_(t, top.expert) / (copies_[top.expert] + 1);
      gain[top.expert] += top.largest - std::max(top.second, after);
    }
    const auto better = [&](std::size_t a, std::size_t b) {
      if ((copies_[a] < most) != (copies_[b] < most)) {
        return copies_[a] < most;
      }
      return gain[a] != gain[b] ? gain[a] > gain[b] : load_per_copy(a) > load_per_copy(b);
    };
    std::size_t best = 0;
    for (std::size_t i = 1; i < copies_.size(); ++i) {
      best = better(i, best) ? i : best;
    }
    return best;
  }

  void add_copy(std::size_t i) {
    ++copies_[i];
    for (std::size_t t = 0; t < top_.size(); ++t) {
      per_copy_(t, i) = loads_(t, i) / copies_[i];
      if (top_[t].expert == i || top_[t].next == i) {
        find_top(t);
      }
    }
  }

 private:
  struct Top {
    std::size_t expert = 0;
    std::size_t next = 0;
    double largest = 0.0;
    double second = 0.0;
  };

  void find_top(std::size_t t) {
    const auto row = per_copy_.row(t);
    Top top{0, row.size(), row[0], 0.0};
    for (std::size_t i = 1; i < row.size(); ++i) {
      if (row[i] > top.largest) {
        top = {i, top.expert, row[i], top.largest};
      } else if (row[i] > top.second) {
        top.next = i;
        top.second = row[i];
      }
    }
    top_[t] = top;
  }

  Matrix<double> loads_;     ///< [steps][experts]
  Matrix<double> per_copy_;  ///< [steps][experts]
  std::vector<Top> top_;     ///< [steps]
  std::vector<int> copies_;
  std::vector<double> total_;  ///< over the steps
};

/// As many copies as slots, by falling load; ties by rising expert.
std::vector<Copy> copies_by_steps(const LayerProblem& problem,
                                  std::span<const std::uint32_t> experts, std::size_t slots,
                                  int devices) {
  StepMaxima maxima(problem, experts);
  for (std::size_t copy = experts.size(); copy < slots; ++copy) {
    maxima.add_copy(maxima.next_to_copy(devices));
  }
  std::vector<Copy> copies;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    copies.insert(copies.end(), static_cast<std::size_t>(maxima.copies(i)),
                  {static_cast<std::int32_t>(experts[i]), maxima.load_per_copy(i)});
  }
  std::ranges::sort(copies, goes_before);
  return copies;
}

void separate(std::span<const Copy> copies, const LayerProblem& problem,
              std::span<std::int32_t> expert_of_slot) {
  std::vector<double> load(static_cast<std::size_t>(problem.experts()), 0.0);
  for (const auto& copy : copies) {
    load[static_cast<std::size_t>(copy.expert)] = copy.load;
  }
  std::vector<double> load_of_slot;
  for (const auto expert : expert_of_slot) {
    load_of_slot.push_back(load[static_cast<std::size_t>(expert)]);
  }
  separate_replicas(problem.slots_per_device(), expert_of_slot, load_of_slot);
}

}  // namespace

void assign_eplb_steps(const LayerProblem& problem, LayerSlots slots) {
  Hierarchy hierarchy(problem);
  // a device with more slots than its node has experts would have to double some
  if (static_cast<std::size_t>(problem.slots_per_device()) >
      static_cast<std::size_t>(problem.experts()) / hierarchy.nodes) {
    hierarchy.groups = hierarchy.nodes = 1;
  }
  const std::vector<float> loads(problem.loads().begin(), problem.loads().end());
  BalancedPacking packing;
  std::vector<std::uint32_t> experts;
  std::vector<int> devices(static_cast<std::size_t>(problem.devices()) / hierarchy.nodes);
  std::iota(devices.begin(), devices.end(), 0);
  place_by_node(hierarchy, packing, loads, experts, slots.expert,
                [&](std::span<const std::uint32_t> here, std::span<std::int32_t> places) {
                  const auto copies = copies_by_steps(problem, here, places.size(),
                                                      static_cast<int>(devices.size()));
                  deal_in_snake_order(copies, devices, places);
                  // here, not over all devices: an exchange must not leave the node
                  separate(copies, problem, places);
                });
}

}  // namespace moevar::placement
