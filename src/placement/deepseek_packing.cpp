#include "placement/deepseek_packing.hpp"

#include <array>
#include <numeric>
#include <utility>

namespace moevar::placement {

/// Leaves keys_ by falling weight, equal weights by rising item. A radix sort on the float's bytes,
/// inverted: on a few hundred items it takes a third of std::sort's time, which loses it in
/// mispredicted branches.
void BalancedPacking::sort_falling(std::span<const float> weights) {
  constexpr std::size_t kBytes = 4;
  constexpr std::size_t kValues = 256;
  std::array<std::array<std::uint32_t, kValues>, kBytes> counts{};
  keys_.resize(weights.size());
  buffer_.resize(weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::uint32_t bits = ~rising_bits(weights[i]);
    keys_[i] = std::uint64_t{bits} << 32U | i;
    for (std::size_t byte = 0; byte < kBytes; ++byte) {
      ++counts[byte][bits >> (8 * byte) & 0xFFU];
    }
  }
  for (std::size_t byte = 0; byte < kBytes; ++byte) {
    auto& count = counts[byte];
    const std::size_t shift = 32 + 8 * byte;
    if (count[keys_.front() >> shift & 0xFFU] == weights.size()) {
      continue;
    }
    std::exclusive_scan(count.begin(), count.end(), count.begin(), 0U);
    for (const auto key : keys_) {
      buffer_[count[key >> shift & 0xFFU]++] = key;
    }
    std::swap(keys_, buffer_);
  }
}

std::span<const std::uint32_t> BalancedPacking::pack(std::span<const float> weights,
                                                     std::size_t packs) {
  const std::size_t room = weights.size() / packs;
  item_at_place_.resize(weights.size());
  if (room <= 1) {
    std::iota(item_at_place_.begin(), item_at_place_.end(), 0U);
    return item_at_place_;
  }
  sort_falling(weights);
  taken_.assign(packs, 0);
  lightest_.reset(packs);
  for (std::size_t pack = 0; pack < packs; ++pack) {
    lightest_.set(pack, packed_key(0.0F, static_cast<std::uint32_t>(pack)));
  }
  lightest_.build();
  for (const auto key : keys_) {
    const auto item = key_index(key);
    const auto lightest = lightest_.smallest();
    const auto pack = key_index(lightest);
    item_at_place_[pack * room + taken_[pack]++] = item;
    lightest_.update(pack, taken_[pack] == room
                               ? MinTree::kNever
                               : packed_key(key_value(lightest) + weights[item], pack));
  }
  return item_at_place_;
}

void experts_by_node(BalancedPacking& packing, std::span<const float> loads, std::size_t groups,
                     std::size_t nodes, std::vector<std::uint32_t>& experts) {
  const std::size_t group_size = loads.size() / groups;
  std::vector<float> load_of_group(groups, 0.0F);
  for (std::size_t e = 0; e < loads.size(); ++e) {
    load_of_group[e / group_size] += loads[e];
  }
  experts.clear();
  for (const auto group : packing.pack(load_of_group, nodes)) {
    for (std::size_t i = 0; i < group_size; ++i) {
      experts.push_back(static_cast<std::uint32_t>(group * group_size + i));
    }
  }
}

}  // namespace moevar::placement
