#include "run/slot_tokens.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace moevar::run {

SlotTokens::SlotTokens(const placement::Placement& placement, DeviceRange devices)
    : placement_(placement),
      first_slot_(static_cast<std::size_t>(devices.begin) *
                  static_cast<std::size_t>(placement.slots_per_device)),
      replicated_(static_cast<std::size_t>(placement.layers())) {
  const std::size_t end = first_slot_ + static_cast<std::size_t>(devices.size()) *
                                            static_cast<std::size_t>(placement.slots_per_device);
  for (std::size_t layer = 0; layer < replicated_.size(); ++layer) {
    const auto experts = placement.expert_of_slot.row(layer);
    const auto shares = placement.share_of_slot.row(layer);
    std::map<std::int32_t, Replicated> shared;
    for (std::size_t slot = 0; slot < shares.size(); ++slot) {
      if (shares[slot] != 1.0) {
        shared.try_emplace(experts[slot]);
      }
    }
    // a replica may take all and leave the others nothing: shares of 1 and 0
    for (std::size_t slot = 0; !shared.empty() && slot < shares.size(); ++slot) {
      if (const auto found = shared.find(experts[slot]); found != shared.end()) {
        auto& replicas = found->second;
        replicas.expert = experts[slot];
        replicas.slots.push_back(slot);
        replicas.shares.push_back(shares[slot]);
      }
    }
    for (auto& [expert, replicas] : shared) {
      if (std::ranges::any_of(replicas.slots,
                              [&](auto slot) { return slot >= first_slot_ && slot < end; })) {
        replicated_[layer].push_back(std::move(replicas));
      }
    }
  }
}

void SlotTokens::count(std::size_t layer, std::span<const std::uint32_t> loads,
                       std::span<std::uint32_t> tokens) {
  const auto experts = placement_.expert_of_slot.row(layer).subspan(first_slot_, tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = loads[static_cast<std::size_t>(experts[i])];
  }
  for (const auto& replicas : replicated_[layer]) {
    split_.resize(replicas.slots.size());
    split_by_share(loads[static_cast<std::size_t>(replicas.expert)], replicas.shares, split_);
    for (std::size_t i = 0; i < split_.size(); ++i) {
      const std::size_t mine = replicas.slots[i] - first_slot_;  // wraps below our first slot
      if (mine < tokens.size()) {
        tokens[mine] = split_[i];
      }
    }
  }
}

void split_by_share(std::uint32_t total, std::span<const double> shares,
                    std::span<std::uint32_t> parts) {
  std::vector<double> remainder(shares.size());
  std::vector<std::size_t> order;
  order.reserve(shares.size());
  std::uint32_t left = total;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const double exact = shares[i] * total;
    parts[i] = std::min(static_cast<std::uint32_t>(exact), left);
    remainder[i] = exact - parts[i];
    left -= parts[i];
    if (shares[i] > 0.0) {
      order.push_back(i);
    }
  }
  // rounding can leave more over than there are remainders, but never for a slot without a share
  for (; left >= order.size() && left > 0; left -= static_cast<std::uint32_t>(order.size())) {
    for (const auto i : order) {
      ++parts[i];
    }
  }
  if (left == 0) {
    return;
  }
  const auto largest = order.begin() + static_cast<std::ptrdiff_t>(left);
  std::nth_element(order.begin(), largest - 1, order.end(), [&](std::size_t a, std::size_t b) {
    return remainder[a] != remainder[b] ? remainder[a] > remainder[b] : a < b;
  });
  std::for_each(order.begin(), largest, [&](std::size_t i) { ++parts[i]; });
}

}  // namespace moevar::run
