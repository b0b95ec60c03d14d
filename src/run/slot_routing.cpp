#include "run/slot_routing.hpp"

#include <algorithm>

#include "run/slot_tokens.hpp"

namespace moevar::run {

namespace {

/// An expert's slots, and how many of its tokens each takes and has got.
struct Replicas {
  std::vector<std::int32_t> slots;
  std::vector<double> shares;
  std::vector<std::uint32_t> due;
  std::vector<std::uint32_t> given;

  /// The slot that is furthest behind its due, the first of equals.
  std::int32_t next() {
    std::size_t best = 0;
    double least = 2.0;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (given[i] < due[i]) {
        const double done = (given[i] + 0.5) / due[i];
        if (done < least) {
          least = done;
          best = i;
        }
      }
    }
    ++given[best];
    return slots[best];
  }
};

std::vector<Replicas> replicas_of(const placement::Placement& placement, int layer) {
  const auto experts = placement.expert_of_slot.row(layer);
  const auto shares = placement.share_of_slot.row(layer);
  const auto last = experts.empty() ? -1 : std::ranges::max(experts);
  std::vector<Replicas> replicas(static_cast<std::size_t>(last + 1));
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    auto& expert = replicas[static_cast<std::size_t>(experts[slot])];
    expert.slots.push_back(static_cast<std::int32_t>(slot));
    expert.shares.push_back(shares[slot]);
  }
  return replicas;
}

}  // namespace

void choose_slots(const placement::Placement& placement, int layer,
                  std::span<const std::int32_t> experts, std::span<std::int32_t> slots) {
  auto replicas = replicas_of(placement, layer);
  std::vector<std::uint32_t> tokens(replicas.size(), 0);
  for (const auto expert : experts) {
    ++tokens[static_cast<std::size_t>(expert)];
  }
  for (std::size_t e = 0; e < replicas.size(); ++e) {
    if (replicas[e].slots.size() > 1) {
      replicas[e].due.resize(replicas[e].slots.size());
      replicas[e].given.resize(replicas[e].slots.size());
      split_by_share(tokens[e], replicas[e].shares, replicas[e].due);
    }
  }
  for (std::size_t i = 0; i < experts.size(); ++i) {
    auto& expert = replicas[static_cast<std::size_t>(experts[i])];
    slots[i] = expert.slots.size() == 1 ? expert.slots.front() : expert.next();
  }
}

}  // namespace moevar::run
