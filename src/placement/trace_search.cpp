#include "placement/trace_search.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "placement/placement.hpp"

namespace moevar::placement {

namespace {

constexpr double kGain = 1e-6;  ///< relative; smaller ones are not worth a move

}  // namespace

TraceSearch::TraceSearch(const LayerProblem& problem, StepTimes& times, const ReceiveBudget* budget)
    : problem_(problem),
      times_(times),
      budget_(budget),
      replicas_(problem.slots() > problem.experts()),
      blocks_((times.steps() + kLanes - 1) / kLanes),
      tokens_((times.slots().expert.size() + 1) * blocks_),
      time_us_(times.devices() * blocks_),
      slope_(times.devices() * blocks_),
      others_(blocks_),
      left_(blocks_),
      right_(blocks_),
      change_(times.steps()) {
  const std::size_t slots = times.slots().expert.size();
  for (std::size_t slot = 0; slot < slots; ++slot) {
    load_slot(slot);
  }
  for (std::size_t d = 0; d < times.devices(); ++d) {
    load_device(d);
  }
}

void TraceSearch::load_slot(std::size_t slot) {
  const auto tokens = times_.tokens(slot);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    tokens_[slot * blocks_ + t / kLanes][t % kLanes] = static_cast<float>(tokens[t]);
  }
}

void TraceSearch::load_device(std::size_t device) {
  const auto& curve = problem_.speeds()[device];
  const auto tokens = times_.device_tokens(device);
  const auto time_us = times_.device_us(device);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    // over about what one exchange changes
    const double span = tokens[t] / static_cast<double>(times_.width());
    const double slope =
        span > 0.0
            ? (curve.time_us(tokens[t] + span) - curve.time_us(tokens[t] - span)) / (2.0 * span)
            : 0.0;
    time_us_[device * blocks_ + t / kLanes][t % kLanes] = static_cast<float>(time_us[t]);
    slope_[device * blocks_ + t / kLanes][t % kLanes] = static_cast<float>(slope);
  }
}

void TraceSearch::load_others(std::size_t a, std::size_t b) {
  for (std::size_t t = 0; t < times_.steps(); ++t) {
    others_[t / kLanes][t % kLanes] = static_cast<float>(times_.others_us(t, a, b));
  }
}

void TraceSearch::hand_over(std::size_t a, std::size_t b, const Lanes* give, float part) noexcept {
  for (std::size_t k = 0; k < blocks_; ++k) {
    const Lanes tokens = part * give[k];
    left_[k] = time_us_[a * blocks_ + k] - slope_[a * blocks_ + k] * tokens;
    right_[k] = time_us_[b * blocks_ + k] + slope_[b * blocks_ + k] * tokens;
  }
}

float TraceSearch::total_after(std::size_t a, std::size_t b, const Lanes* take) const noexcept {
  const Lanes* slope_a = &slope_[a * blocks_];
  const Lanes* slope_b = &slope_[b * blocks_];
  Lanes sum{};
  for (std::size_t k = 0; k < blocks_; ++k) {
    const Lanes left = left_[k] + slope_a[k] * take[k];
    const Lanes right = right_[k] - slope_b[k] * take[k];
    const Lanes slower = left > right ? left : right;
    sum += slower > others_[k] ? slower : others_[k];
  }
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/// Whether the slot's device may take an expert in its place.
bool TraceSearch::may_receive(std::size_t slot, std::int32_t expert) const {
  const std::size_t device = slot / times_.width();
  const auto here = times_.slots().expert.subspan(device * times_.width(), times_.width());
  const auto is_new = [&](std::int32_t e) { return budget_->is_new(device, e); };
  const auto received = std::ranges::count_if(here, is_new) -
                        static_cast<std::ptrdiff_t>(is_new(times_.slots().expert[slot])) +
                        static_cast<std::ptrdiff_t>(is_new(expert));
  return received <= budget_->most;
}

bool TraceSearch::may_exchange(std::size_t slot_a, std::size_t slot_b) const {
  const std::size_t a = slot_a / times_.width();
  const std::size_t b = slot_b / times_.width();
  const auto give = times_.slots().expert[slot_a];
  const auto take = times_.slots().expert[slot_b];
  if (replicas_ && (times_.holds(b, give) || times_.holds(a, take))) {
    return false;
  }
  return budget_ == nullptr || (may_receive(slot_a, take) && may_receive(slot_b, give));
}

void TraceSearch::moved(std::size_t slot_a, std::size_t slot_b) {
  for (const auto slot : {slot_a, slot_b}) {
    load_slot(slot);
    load_device(slot / times_.width());
  }
}

/// The best exchange between two devices, if it helps.
bool TraceSearch::exchange_with(std::size_t a, std::size_t b) {
  load_others(a, b);
  const std::size_t width = times_.width();
  auto best = static_cast<float>(times_.total_us() * (1.0 - kGain));
  std::size_t slot_a = 0;
  std::size_t slot_b = 0;
  bool found = false;
  for (std::size_t i = a * width; i < (a + 1) * width; ++i) {
    hand_over(a, b, &tokens_[i * blocks_], 1.0F);
    for (std::size_t j = b * width; j < (b + 1) * width; ++j) {
      const float after = total_after(a, b, &tokens_[j * blocks_]);
      if (after < best && may_exchange(i, j)) {
        best = after;
        slot_a = i;
        slot_b = j;
        found = true;
      }
    }
  }
  looked_at_ += width * width;
  if (!found) {
    return false;
  }
  std::ranges::transform(times_.tokens(slot_a), times_.tokens(slot_b), change_.begin(),
                         std::minus<>{});
  if (times_.gain_us(a, b, change_) <= kGain * times_.total_us()) {
    return false;
  }
  times_.exchange(slot_a, slot_b);
  moved(slot_a, slot_b);
  return true;
}

/// The best shift of a part of one expert's tokens between replicas on two devices, if it helps.
bool TraceSearch::shift_to(std::size_t a, std::size_t b) {
  constexpr std::array kParts{1.0, 0.5, 0.25, 0.1, 0.04, 0.015};
  const std::size_t width = times_.width();
  const auto& slots = times_.slots();
  const Lanes* nothing = &tokens_[slots.expert.size() * blocks_];
  auto best = static_cast<float>(times_.total_us() * (1.0 - kGain));
  double best_share = 0.0;
  std::size_t from = 0;
  std::size_t to = 0;
  for (std::size_t i = a * width; i < (a + 1) * width; ++i) {
    for (std::size_t j = b * width; j < (b + 1) * width; ++j) {
      if (slots.expert[i] != slots.expert[j] || !(slots.share[i] > 0.0)) {
        continue;
      }
      load_others(a, b);
      for (const double part : kParts) {
        hand_over(a, b, &tokens_[i * blocks_], static_cast<float>(part));
        const float after = total_after(a, b, nothing);
        if (after < best) {
          best = after;
          best_share = part * slots.share[i];
          from = i;
          to = j;
        }
      }
      looked_at_ += kParts.size();
    }
  }
  if (best_share == 0.0) {
    return false;
  }
  std::ranges::transform(times_.loads(slots.expert[from]), change_.begin(),
                         [&](double load) { return load * best_share; });
  if (times_.gain_us(a, b, change_) <= kGain * times_.total_us()) {
    return false;
  }
  times_.shift(from, to, best_share);
  moved(from, to);
  return true;
}

bool TraceSearch::in_vain(std::size_t a, std::size_t b) const {
  return !tried_.empty() && tried_[a * changed_.size() + b] > std::max(changed_[a], changed_[b]);
}

/// Whatever makes device a faster in the steps where it is the slowest; with `all` also exchanges
/// that were in vain before.
bool TraceSearch::relieve(std::size_t a, bool all) {
  const bool shifts = replicas_ && !problem_.options().even_shares;
  bool any = false;
  for (std::size_t b = 0; b < times_.devices(); ++b) {
    if (b == a || times_.within_reach_us(a) <= kGain * times_.total_us() ||
        (!all && in_vain(a, b))) {
      continue;
    }
    const bool shifted = shifts && shift_to(a, b);
    const bool exchanged = exchange_with(a, b);
    if (shifted || exchanged) {
      ++moves_;
      changed_[a] = moves_;
      changed_[b] = moves_;
      any = true;
    } else if (!tried_.empty()) {
      tried_[a * changed_.size() + b] = moves_ + 1;
    }
  }
  return any;
}

bool TraceSearch::pass(std::size_t budget, bool all) {
  std::vector<std::size_t> order(times_.devices());
  std::vector<double> reach(times_.devices());
  for (std::size_t d = 0; d < order.size(); ++d) {
    order[d] = d;
    reach[d] = times_.within_reach_us(d);
  }
  std::ranges::stable_sort(order, std::greater<>{}, [&](std::size_t d) { return reach[d]; });
  bool any = false;
  for (const auto a : order) {
    if (looked_at_ < budget && times_.within_reach_us(a) > kGain * times_.total_us()) {
      any = relieve(a, all) || any;
    }
  }
  return any;
}

void TraceSearch::run(std::size_t budget) {
  constexpr std::size_t kMostRemembered = 1024;  // devices: a table of 8 MiB
  changed_.assign(times_.devices(), 0);
  if (times_.devices() <= kMostRemembered) {
    tried_.assign(times_.devices() * times_.devices(), 0);
  }
  // what others did may have made room: in the end all are asked once more
  while (looked_at_ < budget && (pass(budget, false) || pass(budget, true))) {
  }
}

}  // namespace moevar::placement
