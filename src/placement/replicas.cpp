#include "placement/replicas.hpp"

#include <algorithm>
#include <cmath>

namespace moevar::placement {

namespace {

/// The next expert to copy: largest load per copy; the lower expert of equals.
struct Candidate {
  double load_per_copy;
  std::int32_t expert;
  int copies;
};

bool later(const Candidate& a, const Candidate& b) noexcept {
  return a.load_per_copy != b.load_per_copy ? a.load_per_copy < b.load_per_copy
                                            : a.expert > b.expert;
}

bool heavier(const Copy& a, const Copy& b) noexcept {
  return a.load != b.load ? a.load > b.load : a.expert < b.expert;
}

}  // namespace

std::vector<Copy> copies_for(std::span<const double> loads, int devices, int slots_per_device) {
  const auto slots = static_cast<std::size_t>(devices) * static_cast<std::size_t>(slots_per_device);
  std::vector<Candidate> heap;
  heap.reserve(loads.size());
  for (std::size_t e = 0; e < loads.size(); ++e) {
    heap.push_back({loads[e], static_cast<std::int32_t>(e), 1});
  }
  std::size_t placed = heap.size();
  std::vector<Candidate> done;
  if (slots > placed) {
    std::ranges::make_heap(heap, later);
  }
  while (placed < slots) {
    if (heap.empty()) {  // more slots than experts × devices: copies have to share a device
      heap.swap(done);
      std::ranges::make_heap(heap, later);
      devices *= 2;
    }
    std::ranges::pop_heap(heap, later);
    auto& next = heap.back();
    if (next.copies == devices) {
      done.push_back(next);
      heap.pop_back();
      continue;
    }
    ++next.copies;
    next.load_per_copy = loads[static_cast<std::size_t>(next.expert)] / next.copies;
    std::ranges::push_heap(heap, later);
    ++placed;
  }
  heap.insert(heap.end(), done.begin(), done.end());
  std::vector<Copy> copies;
  copies.reserve(slots);
  for (const auto& candidate : heap) {
    copies.insert(copies.end(), static_cast<std::size_t>(candidate.copies),
                  {candidate.expert, candidate.load_per_copy});
  }
  std::ranges::sort(copies, heavier);
  return copies;
}

void separate_replicas(int slots_per_device, std::span<std::int32_t> expert_of_slot,
                       std::span<double> load_of_slot) {
  const auto width = static_cast<std::size_t>(slots_per_device);
  const auto on_device = [&](std::size_t device, std::int32_t expert) {
    return std::ranges::count(expert_of_slot.subspan(device * width, width), expert);
  };
  const auto separate = [&](std::size_t slot) {
    const auto expert = expert_of_slot[slot];
    const std::size_t device = slot / width;
    std::size_t best = slot;
    for (std::size_t other = 0; other < expert_of_slot.size(); ++other) {
      const std::size_t there = other / width;
      if (there == device || on_device(there, expert) > 0 ||
          on_device(device, expert_of_slot[other]) > 0) {
        continue;
      }
      if (best == slot || std::abs(load_of_slot[other] - load_of_slot[slot]) <
                              std::abs(load_of_slot[best] - load_of_slot[slot])) {
        best = other;
      }
    }
    std::swap(expert_of_slot[slot], expert_of_slot[best]);
    std::swap(load_of_slot[slot], load_of_slot[best]);
    return best != slot;
  };
  // an exchange may make room for another; each leaves fewer doubled than before
  bool any = true;
  while (any) {
    any = false;
    for (std::size_t slot = 0; slot < expert_of_slot.size(); ++slot) {
      if (on_device(slot / width, expert_of_slot[slot]) > 1) {
        any = separate(slot) || any;
      }
    }
  }
}

void share_evenly(std::span<const std::int32_t> expert_of_slot, int experts,
                  std::span<double> share_of_slot) {
  std::vector<int> copies(static_cast<std::size_t>(experts), 0);
  for (const auto expert : expert_of_slot) {
    ++copies[static_cast<std::size_t>(expert)];
  }
  for (std::size_t slot = 0; slot < expert_of_slot.size(); ++slot) {
    share_of_slot[slot] = 1.0 / copies[static_cast<std::size_t>(expert_of_slot[slot])];
  }
}

}  // namespace moevar::placement
