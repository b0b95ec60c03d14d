#include "placement/migration.hpp"

#include <algorithm>
#include <memory_resource>
#include <span>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/tensor.hpp"

namespace moevar::placement {

namespace {

using Experts = std::pmr::vector<std::int32_t>;

std::span<const std::int32_t> slots_of(const Placement& placement, int layer, int device) {
  const auto width = static_cast<std::size_t>(placement.slots_per_device);
  return placement.expert_of_slot.row(layer).subspan(static_cast<std::size_t>(device) * width,
                                                     width);
}

bool contains(std::span<const std::int32_t> experts, std::int32_t expert) {
  return std::ranges::find(experts, expert) != experts.end();
}

/// Removes one of that expert; false where there is none.
bool remove_one(Experts& experts, std::int32_t expert) {
  const auto found = std::ranges::find(experts, expert);
  if (found == experts.end()) {
    return false;
  }
  experts.erase(found);
  return true;
}

/// The migration of one layer.
class LayerPlan {
 public:
  LayerPlan(const Placement& from, const Placement& to, int layer, std::vector<Send>& plan)
      : layer_(layer), plan_(plan), sent_(static_cast<std::size_t>(to.devices), 0) {
    const auto last = std::max(std::ranges::max(from.expert_of_slot.row(layer)),
                               std::ranges::max(to.expert_of_slot.row(layer)));
    experts_.reserve(static_cast<std::size_t>(last) + 1);
    for (std::int32_t id = 0; id <= last; ++id) {
      experts_.emplace_back(&memory_);
    }
    devices_.reserve(sent_.size());
    for (int d = 0; d < to.devices; ++d) {
      devices_.emplace_back(&memory_);
      add_device(d, slots_of(from, layer, d), slots_of(to, layer, d));
    }
  }

  void make() {
    for (int d = 0; d < static_cast<int>(devices_.size()); ++d) {
      while (!device(d).missing.empty()) {
        receive(d, device(d).missing.front());
      }
    }
  }

 private:
  struct Device {
    explicit Device(std::pmr::memory_resource* memory)
        : kept(memory), missing(memory), surplus(memory) {}
    Experts kept;     ///< wanted and held, each once
    Experts missing;  ///< wanted and not held, each once, in the order of the slots
    Experts surplus;  ///< copies that are not wanted, or more of them than are
  };
  struct Expert {
    explicit Expert(std::pmr::memory_resource* memory) : holders(memory), homes(memory) {}
    std::pmr::vector<int> holders;  ///< devices, each once
    int least_sent = 0;             ///< none of them has sent less
    std::pmr::vector<int> homes;    ///< devices that want it and do not hold it yet
    bool at_home = false;           ///< on a device that wants it
  };

  Expert& expert(std::int32_t id) { return experts_[static_cast<std::size_t>(id)]; }
  Device& device(int id) { return devices_[static_cast<std::size_t>(id)]; }
  int& sent(int id) { return sent_[static_cast<std::size_t>(id)]; }

  void add_device(int d, std::span<const std::int32_t> held, std::span<const std::int32_t> wanted) {
    auto& mine = device(d);
    open_.assign(wanted.begin(), wanted.end());
    for (const auto id : held) {
      auto& holders = expert(id).holders;
      if (holders.empty() || holders.back() != d) {
        holders.push_back(d);
      }
      if (!remove_one(open_, id)) {
        mine.surplus.push_back(id);
      } else if (!contains(mine.kept, id)) {
        mine.kept.push_back(id);
        expert(id).at_home = true;
      }
    }
    for (const auto id : open_) {
      if (!contains(mine.kept, id) && !contains(mine.missing, id)) {
        mine.missing.push_back(id);
        expert(id).homes.push_back(d);
      }
    }
  }

  /// Brings an expert to a device, and every device that this leaves with a copy too many back to
  /// its slots.
  void receive(int d, std::int32_t id) {
    send(id, source_of(id), d);
    for (int full = d;;) {
      auto& surplus = device(full).surplus;
      const auto spare = std::ranges::find_if(
          surplus, [&](std::int32_t s) { return expert(s).at_home || expert(s).homes.empty(); });
      if (spare != surplus.end()) {
        plan_.back().replaced = *spare;
        drop(full, *spare);
        return;
      }
      const auto homeless = surplus.front();
      const int home = expert(homeless).homes.front();
      send(homeless, full, home);
      plan_.back().leaves = true;
      drop(full, homeless);
      full = home;
    }
  }

  /// The holder that has sent least, the first of equals.
  int source_of(std::int32_t id) {
    auto& [holders, least_sent, homes, at_home] = expert(id);
    if (holders.empty()) {
      throw InputError(
          fmt::format("migration: expert {} of layer {} has a slot to go to, but lies nowhere now",
                      id, layer_));
    }
    int best = holders.front();
    for (const int d : holders) {
      if (sent(d) < sent(best)) {
        best = d;
      }
      if (sent(best) == least_sent) {
        return best;
      }
    }
    least_sent = sent(best);
    return best;
  }

  void send(std::int32_t id, int source, int target) {
    plan_.push_back({layer_, id, source, target});
    ++sent(source);
    remove_one(device(target).missing, id);
    device(target).kept.push_back(id);
    std::erase(expert(id).homes, target);
    expert(id).holders.push_back(target);
    expert(id).least_sent = std::min(expert(id).least_sent, sent(target));
    expert(id).at_home = true;
  }

  /// Gives up a surplus copy.
  void drop(int d, std::int32_t id) {
    auto& mine = device(d);
    remove_one(mine.surplus, id);
    if (!contains(mine.surplus, id) && !contains(mine.kept, id)) {
      std::erase(expert(id).holders, d);
    }
  }

  int layer_;
  std::vector<Send>& plan_;
  std::pmr::monotonic_buffer_resource memory_;  ///< of many short lists
  Experts open_;                                ///< of add_device()
  std::vector<Device> devices_;
  std::vector<int> sent_;  ///< by each device; apart, for it is looked through often
  std::vector<Expert> experts_;
};

void check_alike(const Placement& from, const Placement& to) {
  if (from.devices != to.devices || from.slots_per_device != to.slots_per_device ||
      from.layers() != to.layers()) {
    throw InputError(fmt::format(
        "migration: from {} layers on {} devices × {} slots to {} on {} × {}; they must be the "
        "same",
        from.layers(), from.devices, from.slots_per_device, to.layers(), to.devices,
        to.slots_per_device));
  }
}

}  // namespace

std::vector<Send> plan_migration(const Placement& from, const Placement& to) {
  return plan_migration(from, to, 0, to.layers());
}

std::vector<Send> plan_migration(const Placement& from, const Placement& to, int first_layer,
                                 int end_layer) {
  check_alike(from, to);
  std::vector<Send> plan;
  for (int layer = first_layer; layer < end_layer; ++layer) {
    LayerPlan(from, to, layer, plan).make();
  }
  return plan;
}

void check_migration(const Placement& from, const Placement& to, const std::vector<Send>& plan) {
  check_alike(from, to);
  Matrix<Experts> held({static_cast<std::size_t>(to.layers()),  //
                        static_cast<std::size_t>(to.devices)});
  for (int layer = 0; layer < to.layers(); ++layer) {
    for (int d = 0; d < to.devices; ++d) {
      const auto slots = slots_of(from, layer, d);
      held(layer, d).assign(slots.begin(), slots.end());
    }
  }
  const auto most = static_cast<std::size_t>(to.slots_per_device);
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const auto& send = plan[i];
    const auto need = [&](bool given, const char* what) {
      if (!given) {
        throw CheckError(
            fmt::format("migration: send {} (layer {}, expert {}, device {} to {}): {}", i,
                        send.layer, send.expert, send.from_device, send.to_device, what));
      }
    };
    auto& source = held(send.layer, send.from_device);
    auto& target = held(send.layer, send.to_device);
    need(contains(source, send.expert), "the source does not hold the expert");
    target.push_back(send.expert);
    need(target.size() <= most + 1, "the target has no spare slot left");
    need(!send.leaves || remove_one(source, send.expert), "the source's copy is gone already");
    need(send.replaced < 0 || remove_one(target, send.replaced),
         "the target does not hold what it gives up");
  }
  for (int layer = 0; layer < to.layers(); ++layer) {
    for (int d = 0; d < to.devices; ++d) {
      const auto wanted = slots_of(to, layer, d);
      if (held(layer, d).size() > most ||
          !std::ranges::all_of(wanted, [&](auto id) { return contains(held(layer, d), id); })) {
        throw CheckError(fmt::format(
            "migration: after {} sends device {} of layer {} does not hold what it should",
            plan.size(), d, layer));
      }
    }
  }
}

}  // namespace moevar::placement
