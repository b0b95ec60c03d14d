#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace moevar::placement {

/// Bits of a non-negative float, which rise as it does. A zero's sign is dropped: with it, -0 would
/// be the largest of all.
constexpr std::uint32_t rising_bits(float value) noexcept {
  return std::bit_cast<std::uint32_t>(value + 0.0F);
}

/// A non-negative float and an index in one integer: rising keys are rising values, equal values
/// rising indices. Comparing such keys is a single branch-free instruction, unlike comparing pairs.
constexpr std::uint64_t packed_key(float value, std::uint32_t index) noexcept {
  return std::uint64_t{rising_bits(value)} << 32U | index;
}
constexpr float key_value(std::uint64_t key) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(key >> 32U));
}
constexpr std::uint32_t key_index(std::uint64_t key) noexcept {
  return static_cast<std::uint32_t>(key);
}

/// The smallest of a fixed number of keys, of which one changes at a time: a tournament tree, whose
/// update is log2(keys) comparisons without a branch.
class MinTree {
 public:
  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

  /// Makes room for `count` keys, all kNever. Call build() once they are set.
  void reset(std::size_t count) {
    leaves_ = std::bit_ceil(count);
    nodes_.assign(2 * leaves_, kNever);
  }
  void set(std::size_t leaf, std::uint64_t key) noexcept { nodes_[leaves_ + leaf] = key; }
  void build() noexcept {
    for (std::size_t node = leaves_ - 1; node > 0; --node) {
      nodes_[node] = smaller(nodes_[2 * node], nodes_[2 * node + 1]);
    }
  }
  void update(std::size_t leaf, std::uint64_t key) noexcept {
    std::size_t node = leaves_ + leaf;
    nodes_[node] = key;
    for (; node > 1; node /= 2) {
      key = smaller(key, nodes_[node ^ 1U]);
      nodes_[node / 2] = key;
    }
  }
  [[nodiscard]] std::uint64_t smallest() const noexcept { return nodes_[1]; }

 private:
  static std::uint64_t smaller(std::uint64_t a, std::uint64_t b) noexcept { return a < b ? a : b; }

  std::size_t leaves_ = 1;
  std::vector<std::uint64_t> nodes_;
};

/// DeepSeek's balanced packing, with its working memory for the next call. Float32, as there.
class BalancedPacking {
 public:
  /// Packs items, heaviest first, each into the lightest pack with room, the first of equals; with
  /// as many packs as items item i goes into pack i. Weights are >= 0; items are a multiple of
  /// packs. Place p of the result, [items], lies in pack p / (items per pack); a pack's places fill
  /// in order. The result lives until the next call.
  std::span<const std::uint32_t> pack(std::span<const float> weights, std::size_t packs);

 private:
  void sort_falling(std::span<const float> weights);

  std::vector<std::uint32_t> item_at_place_;
  std::vector<std::uint64_t> keys_;
  std::vector<std::uint64_t> buffer_;
  std::vector<std::uint32_t> taken_;
  MinTree lightest_;
};

/// The experts by node and, inside a node, by group, [experts]: groups packed onto nodes by their
/// load. Groups are equal runs of experts; a multiple of `nodes`.
/// Source: deepseek-ai/EPLB, first step of rebalance_experts_hierarchical.
void experts_by_node(BalancedPacking& packing, std::span<const float> loads, std::size_t groups,
                     std::size_t nodes, std::vector<std::uint32_t>& experts);

}  // namespace moevar::placement
