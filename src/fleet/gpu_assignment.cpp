#include "fleet/gpu_assignment.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::fleet {

namespace {

constexpr auto kShare = "or let ranks share GPUs with --share-gpu";
constexpr std::size_t kMostCores = 8;

/// Ranks of one node that see the same GPUs, ascending.
using Group = std::vector<std::size_t>;

std::vector<std::string> uuids_of(const RankView& rank) {
  std::vector<std::string> uuids;
  uuids.reserve(rank.gpus.size());
  for (const auto& seen : rank.gpus) {
    uuids.push_back(seen.gpu.uuid);
  }
  return uuids;
}

std::vector<Group> groups_of(std::span<const RankView> ranks) {
  std::map<std::pair<int, std::vector<std::string>>, Group> groups;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    auto uuids = uuids_of(ranks[r]);
    std::ranges::sort(uuids);
    groups[{ranks[r].place.node, std::move(uuids)}].push_back(r);
  }
  std::vector<Group> all;
  all.reserve(groups.size());
  for (auto& [seen, group] : groups) {
    all.push_back(std::move(group));
  }
  return all;
}

/// "rank 3", "ranks 2 and 3", "ranks 1, 2 and 3"
std::string name_ranks(std::span<const std::size_t> ranks) {
  if (ranks.size() == 1) {
    return fmt::format("rank {}", ranks.front());
  }
  return fmt::format("ranks {} and {}", fmt::join(ranks.first(ranks.size() - 1), ", "),
                     ranks.back());
}

/// The GPU that an ordinal or a UUID names for this rank: its place among those that it sees.
std::optional<std::size_t> find_gpu(const RankView& rank, const std::string& name) {
  const auto found = std::ranges::find_if(rank.gpus, [&](const SeenGpu& seen) {
    return seen.gpu.uuid == name || fmt::format("{}", seen.gpu.ordinal) == name;
  });
  return found == rank.gpus.end()
             ? std::nullopt
             : std::optional(static_cast<std::size_t>(found - rank.gpus.begin()));
}

/// Every GPU of a rank, "0: GPU-…, 1: GPU-…".
std::string list_gpus(const RankView& rank) {
  std::vector<std::string> texts;
  texts.reserve(rank.gpus.size());
  for (const auto& seen : rank.gpus) {
    texts.push_back(fmt::format("{}: {}", seen.gpu.ordinal, seen.gpu.uuid));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

void check_entries(std::span<const RankView> ranks, const GpuOptions& options) {
  for (const auto& entry : options.gpus) {
    const bool known = std::ranges::any_of(
        ranks, [&](const RankView& rank) { return find_gpu(rank, entry).has_value(); });
    if (!known) {
      throw EnvironmentError(fmt::format(
          R"(fleet.gpus: no rank sees a GPU "{}"; rank 0 on {} sees {})", printable(entry),
          ranks.front().host, ranks.front().gpus.empty() ? "none" : list_gpus(ranks.front())));
    }
  }
}

/// What a group's ranks take in turn: UUIDs in the order of its first rank, or entries of the list.
std::vector<std::string> choices_of(const RankView& first, const GpuOptions& options) {
  if (options.gpus.empty()) {
    return uuids_of(first);
  }
  std::vector<std::string> choices;
  std::map<std::size_t, std::string> entry_of;
  for (const auto& entry : options.gpus) {
    const auto seen = find_gpu(first, entry);
    if (!seen) {
      continue;
    }
    const auto [before, is_new] = entry_of.try_emplace(*seen, entry);
    if (!is_new && !options.share_gpu) {
      throw EnvironmentError(
          fmt::format(R"(fleet.gpus: "{}" and "{}" are the same GPU, {} on {}; list it once, {})",
                      printable(before->second), printable(entry), first.gpus[*seen].gpu.uuid,
                      first.host, kShare));
    }
    choices.push_back(entry);
  }
  return choices;
}

[[noreturn]] void refuse_crowd(const Group& group, const RankView& first, std::size_t choices,
                               bool listed) {
  if (first.gpus.empty()) {
    throw EnvironmentError(
        fmt::format("{} on {}: no GPU visible; check CUDA_VISIBLE_DEVICES, and what the job asked "
                    "for (--gpus-per-task, --gpus-per-node)",
                    name_ranks(group), first.host));
  }
  const auto left = std::span(group).subspan(choices);
  const auto seen = fmt::format("{}", fmt::join(uuids_of(first), ", "));
  if (listed) {
    throw EnvironmentError(fmt::format(
        "{} on {} have no GPU of their own: of those that {} there see ({}), fleet.gpus lists {}; "
        "list more, {}",
        name_ranks(left), first.host, name_ranks(group), seen, choices, kShare));
  }
  throw EnvironmentError(
      fmt::format("{} on {} have no GPU of their own: {} there see {} ({}); start at most {} "
                  "ranks a node, {}",
                  name_ranks(left), first.host, name_ranks(group), choices, seen, choices, kShare));
}

void refuse_shared(std::span<const RankView> ranks, std::span<const AssignedGpu> assigned) {
  std::map<std::string, std::size_t> holder;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const auto [found, is_new] = holder.try_emplace(assigned[r].uuid, r);
    if (is_new) {
      continue;
    }
    const auto other = found->second;
    throw EnvironmentError(fmt::format(
        "rank {} on {} and rank {} on {} have the same GPU, {} (ordinals {} and {}); give each its "
        "own, {}",
        other, ranks[other].host, r, ranks[r].host, assigned[r].uuid, assigned[other].ordinal,
        assigned[r].ordinal, kShare));
  }
}

/// Of these cores those near the rank's GPU; none: it has no known place, or none of them is near.
std::vector<int> near_cores(const RankView& rank, const AssignedGpu& assigned,
                            const std::set<int>& cores) {
  std::vector<int> near;
  if (const auto& known = rank.gpus[assigned.seen].near) {
    std::ranges::set_intersection(cores, known->threads, std::back_inserter(near));
  }
  return near;
}

std::string why_not_near(const RankView& rank, const AssignedGpu& assigned) {
  const auto& seen = rank.gpus[assigned.seen];
  return seen.near ? fmt::format("the launcher left no core near GPU {}; start with --bind-to none",
                                 pci::to_string(seen.gpu.pci))
                   : fmt::format("this machine does not tell which cores are near GPU {}",
                                 pci::to_string(seen.gpu.pci));
}

/// Deals `cores` to the ranks of a group, one after the other; each gets the same number.
void deal(const Group& group, const std::vector<int>& cores, std::vector<CoreShare>& shares) {
  const std::size_t each = std::clamp(cores.size() / group.size(), std::size_t{1}, kMostCores);
  for (std::size_t k = 0; k < group.size(); ++k) {
    auto& mine = shares[group[k]].cores;
    for (std::size_t c = 0; c < each; ++c) {
      mine.push_back(cores[(k * each + c) % cores.size()]);
    }
    std::ranges::sort(mine);
  }
}

void deal_node(std::span<const RankView> ranks, std::span<const AssignedGpu> assigned,
               const Group& node, std::vector<CoreShare>& shares) {
  std::set<int> all;
  for (const auto r : node) {
    all.insert(ranks[r].cores.begin(), ranks[r].cores.end());
  }
  // the fewer cores are near, the earlier they are dealt; who is near none comes last
  std::map<std::pair<std::size_t, std::vector<int>>, Group> groups;
  for (const auto r : node) {
    auto near = near_cores(ranks[r], assigned[r], all);
    if (near.empty()) {
      shares[r].note = why_not_near(ranks[r], assigned[r]);
      groups[{all.size() + 1, {all.begin(), all.end()}}].push_back(r);
    } else {
      groups[{near.size(), std::move(near)}].push_back(r);
    }
  }
  std::set<int> taken;
  for (const auto& [key, group] : groups) {
    std::vector<int> left;
    std::ranges::set_difference(key.second, taken, std::back_inserter(left));
    deal(group, left.size() < group.size() ? key.second : left, shares);
    for (const auto r : group) {
      taken.insert(shares[r].cores.begin(), shares[r].cores.end());
    }
  }
}

}  // namespace

std::vector<AssignedGpu> assign_gpus(std::span<const RankView> ranks, const GpuOptions& options) {
  check_entries(ranks, options);
  std::vector<AssignedGpu> assigned(ranks.size());
  for (const auto& group : groups_of(ranks)) {
    const auto& first = ranks[group.front()];
    const auto choices = choices_of(first, options);
    if (choices.empty() || (choices.size() < group.size() && !options.share_gpu)) {
      refuse_crowd(group, first, choices.size(), !options.gpus.empty());
    }
    for (std::size_t k = 0; k < group.size(); ++k) {
      const auto& rank = ranks[group[k]];
      const auto& name = choices[k % choices.size()];
      const auto seen = find_gpu(rank, name);
      if (!seen) {  // a GPU that could not be asked leaves a gap in the ordinals
        throw EnvironmentError(fmt::format(R"(rank {} on {} does not see GPU "{}", but {})",
                                           group[k], rank.host, printable(name), list_gpus(rank)));
      }
      const auto& gpu = rank.gpus[*seen].gpu;
      assigned[group[k]] = {*seen, gpu.ordinal, gpu.uuid};
    }
  }
  if (!options.share_gpu) {
    refuse_shared(ranks, assigned);
  }
  return assigned;
}

std::vector<CoreShare> deal_cores(std::span<const RankView> ranks,
                                  std::span<const AssignedGpu> assigned) {
  std::map<int, Group> nodes;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    nodes[ranks[r].place.node].push_back(r);
  }
  std::vector<CoreShare> shares(ranks.size());
  for (const auto& [index, node] : nodes) {
    deal_node(ranks, assigned, node, shares);
  }
  return shares;
}

}  // namespace moevar::fleet
