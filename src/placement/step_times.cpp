#include "placement/step_times.hpp"

#include <algorithm>
#include <utility>

namespace moevar::placement {

StepTimes::StepTimes(const LayerProblem& problem, LayerSlots slots)
    : problem_(problem),
      slots_(slots),
      devices_(static_cast<std::size_t>(problem.devices())),
      width_(static_cast<std::size_t>(problem.slots_per_device())),
      steps_(static_cast<std::size_t>(problem.steps())),
      reach_us_(devices_) {
  const auto experts = static_cast<std::size_t>(problem.experts());
  loads_.resize(experts * steps_);
  for (std::size_t step = 0; step < steps_; ++step) {
    const auto loads = problem.step(static_cast<int>(step));
    for (std::size_t e = 0; e < experts; ++e) {
      loads_[e * steps_ + step] = loads[e];
    }
  }
  slot_tokens_.resize(slots.expert.size() * steps_);
  for (std::size_t slot = 0; slot < slots.expert.size(); ++slot) {
    fill_slot(slot);
  }
  tokens_.resize(devices_ * steps_);
  time_us_.resize(devices_ * steps_);
  top_.resize(steps_);
  for (std::size_t d = 0; d < devices_; ++d) {
    add_up(d);
  }
  for (std::size_t t = 0; t < steps_; ++t) {
    rank(t);
  }
  sum_up();
}

bool StepTimes::holds(std::size_t device, std::int32_t expert) const noexcept {
  const auto slots = slots_.expert.subspan(device * width_, width_);
  return std::ranges::find(slots, expert) != slots.end();
}

double StepTimes::others_us(std::size_t step, std::size_t a, std::size_t b) const noexcept {
  const auto& top = top_[step];
  for (std::size_t k = 0; k < kTop; ++k) {
    if (top.device[k] != a && top.device[k] != b) {
      return top.time_us[k];
    }
  }
  return 0.0;
}

double StepTimes::gain_us(std::size_t a, std::size_t b, std::span<const double> change) const {
  const auto& curve_a = problem_.speeds()[a];
  const auto& curve_b = problem_.speeds()[b];
  double gain = 0.0;
  for (std::size_t t = 0; t < steps_; ++t) {
    const double after =
        std::max({others_us(t, a, b), curve_a.time_us(tokens_[a * steps_ + t] - change[t]),
                  curve_b.time_us(tokens_[b * steps_ + t] + change[t])});
    gain += top_[t].time_us[0] - after;
  }
  return gain;
}

void StepTimes::exchange(std::size_t slot_a, std::size_t slot_b) {
  std::swap(slots_.expert[slot_a], slots_.expert[slot_b]);
  std::swap(slots_.share[slot_a], slots_.share[slot_b]);
  for (const auto slot : {slot_a, slot_b}) {
    fill_slot(slot);
    add_up(slot / width_);
  }
  rank_after(slot_a / width_, slot_b / width_);
}

void StepTimes::shift(std::size_t from, std::size_t to, double share) {
  slots_.share[from] -= share;
  slots_.share[to] += share;
  for (const auto slot : {from, to}) {
    fill_slot(slot);
    add_up(slot / width_);
  }
  rank_after(from / width_, to / width_);
}

void StepTimes::fill_slot(std::size_t slot) {
  const auto all = loads(slots_.expert[slot]);
  std::ranges::transform(all, slot_tokens_.begin() + static_cast<std::ptrdiff_t>(slot * steps_),
                         [&](double load) { return load * slots_.share[slot]; });
}

void StepTimes::add_up(std::size_t device) {
  const auto sum = std::span(tokens_).subspan(device * steps_, steps_);
  std::ranges::fill(sum, 0.0);
  for (std::size_t slot = device * width_; slot < (device + 1) * width_; ++slot) {
    const auto part = tokens(slot);
    for (std::size_t t = 0; t < steps_; ++t) {
      sum[t] += part[t];
    }
  }
  for (std::size_t t = 0; t < steps_; ++t) {
    time_us_[device * steps_ + t] = problem_.speeds()[device].time_us(sum[t]);
  }
}

void StepTimes::rank(std::size_t step) {
  auto& top = top_[step];
  top.time_us.fill(0.0);
  top.device.fill(devices_);
  for (std::size_t d = 0; d < devices_; ++d) {
    const double time = time_us_[d * steps_ + step];
    if (time <= top.time_us[kTop - 1]) {
      continue;
    }
    std::size_t k = kTop - 1;
    for (; k > 0 && time > top.time_us[k - 1]; --k) {
      top.time_us[k] = top.time_us[k - 1];
      top.device[k] = top.device[k - 1];
    }
    top.time_us[k] = time;
    top.device[k] = d;
  }
}

/// Only where one of two changed devices was or is among the slowest.
void StepTimes::rank_after(std::size_t a, std::size_t b) {
  for (std::size_t t = 0; t < steps_; ++t) {
    const auto& top = top_[t];
    const bool was =
        std::ranges::any_of(top.device, [&](std::size_t d) { return d == a || d == b; });
    if (was || std::max(time_us_[a * steps_ + t], time_us_[b * steps_ + t]) >= top.time_us.back()) {
      rank(t);
    }
  }
  sum_up();
}

void StepTimes::sum_up() {
  total_us_ = 0.0;
  std::ranges::fill(reach_us_, 0.0);
  for (const auto& top : top_) {
    total_us_ += top.time_us[0];
    if (top.device[0] < devices_) {
      reach_us_[top.device[0]] += top.time_us[0] - top.time_us[1];
    }
  }
}

}  // namespace moevar::placement
