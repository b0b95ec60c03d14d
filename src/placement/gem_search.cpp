#include "placement/gem_search.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

namespace moevar::placement {

namespace {

/// Gains below it are the rounding of sums, and would go in circles.
constexpr double kRounding = 1e-12;

/// Four times an even share: what devices hold in all but the first moments of a search.
double tabulated_tokens(const LayerProblem& problem) {
  double most = 0.0;
  for (int t = 0; t < problem.steps(); ++t) {
    const auto loads = problem.step(t);
    most = std::max(most, std::accumulate(loads.begin(), loads.end(), 0.0));
  }
  constexpr double kLargestTable = 1 << 12;
  return std::min(std::min(4.0 / problem.devices(), 1.0) * most, kLargestTable * kGemTile);
}

}  // namespace

TileTimes::TileTimes(const SpeedModels& speeds, double tokens)
    : speeds_(speeds),
      stride_(static_cast<std::size_t>(std::ceil(tokens / kGemTile)) + 2),
      tiles_(static_cast<double>(stride_)) {
  table_.reserve(speeds.size() * stride_);
  for (const auto& curve : speeds) {
    for (std::size_t tile = 0; tile < stride_; ++tile) {
      table_.push_back(curve.time_us(static_cast<double>(tile) * kGemTile));
    }
  }
}

double TileTimes::far_us(std::size_t device, double tokens) const noexcept {
  return speeds_[device].time_us(std::ceil(tokens / kGemTile * (1.0 - kRounding)) * kGemTile);
}

double TileTimes::tokens_within(std::size_t device, double time_us) const noexcept {
  const auto times = std::span<const double>(table_).subspan(device * stride_, stride_);
  const auto above = std::ranges::upper_bound(times, time_us) - times.begin();
  return above == std::ssize(times) ? std::numeric_limits<double>::infinity()
                                    : static_cast<double>(above - 1) * kGemTile;
}

GemSearch::GemSearch(const LayerProblem& problem, std::span<const Copy> copies)
    : problem_(problem),
      steps_(static_cast<std::size_t>(problem.steps())),
      devices_(static_cast<std::size_t>(problem.devices())),
      width_(static_cast<std::size_t>(problem.slots_per_device())),
      load_({static_cast<std::size_t>(problem.experts()), steps_}),
      tokens_({devices_, steps_}),
      time_us_({devices_, steps_}),
      tiles_(problem.speeds(), tabulated_tokens(problem)),
      slowest_(steps_),
      beside_(steps_),
      critical_(steps_),
      expert_of_slot_(devices_ * width_) {
  std::vector<int> of_expert(static_cast<std::size_t>(problem.experts()), 0);
  for (const auto& copy : copies) {
    ++of_expert[static_cast<std::size_t>(copy.expert)];
  }
  for (std::size_t t = 0; t < steps_; ++t) {
    const auto loads = problem.step(static_cast<int>(t));
    for (std::size_t e = 0; e < loads.size(); ++e) {
      load_(e, t) = loads[e] / of_expert[e];
    }
  }
}

bool GemSearch::holds(std::size_t device, std::int32_t expert, std::size_t taken) const {
  const auto there = std::span<const std::int32_t>(expert_of_slot_).subspan(device * width_, taken);
  return std::ranges::find(there, expert) != there.end();
}

void GemSearch::start_greedily(std::span<const Copy> copies) {
  std::ranges::fill(tokens_.flat(), 0.0);
  std::vector<std::size_t> taken(devices_, 0);
  std::vector<double> so_far(steps_, 0.0);  // the slowest device's time, [steps]
  for (const auto& copy : copies) {
    const auto load = load_.row(copy.expert);
    std::size_t best = devices_;
    std::tuple<bool, double> best_cost;
    for (std::size_t d = 0; d < devices_; ++d) {
      if (taken[d] == width_) {
        continue;
      }
      double score = 0.0;
      for (std::size_t t = 0; t < steps_; ++t) {
        score += std::max(so_far[t], tiles_.time_us(d, tokens_(d, t) + load[t]));
      }
      const std::tuple cost{holds(d, copy.expert, taken[d]), score};
      if (best == devices_ || cost < best_cost) {
        best = d;
        best_cost = cost;
      }
    }
    expert_of_slot_[best * width_ + taken[best]++] = copy.expert;
    for (std::size_t t = 0; t < steps_; ++t) {
      tokens_(best, t) += load[t];
      so_far[t] = std::max(so_far[t], tiles_.time_us(best, tokens_(best, t)));
    }
  }
  start_from(std::move(expert_of_slot_));
}

void GemSearch::start_from(std::vector<std::int32_t> expert_of_slot) {
  expert_of_slot_ = std::move(expert_of_slot);
  for (std::size_t d = 0; d < devices_; ++d) {
    sum_up(d);
  }
  rank();
}

void GemSearch::sum_up(std::size_t device) {
  const auto tokens = tokens_.row(device);
  std::ranges::fill(tokens, 0.0);
  for (std::size_t slot = device * width_; slot < (device + 1) * width_; ++slot) {
    const auto load = load_.row(expert_of_slot_[slot]);
    for (std::size_t t = 0; t < steps_; ++t) {
      tokens[t] += load[t];
    }
  }
  for (std::size_t t = 0; t < steps_; ++t) {
    time_us_(device, t) = tiles_.time_us(device, tokens[t]);
  }
}

void GemSearch::rank() {
  score_ = 0.0;
  for (std::size_t t = 0; t < steps_; ++t) {
    Slowest top;
    top.device.fill(devices_);
    for (std::size_t d = 0; d < devices_; ++d) {
      const double time = time_us_(d, t);
      std::size_t place = 0;
      while (place < 3 && top.device[place] != devices_ && time <= top.time_us[place]) {
        ++place;
      }
      for (std::size_t i = 2; i > place; --i) {
        top.time_us[i] = top.time_us[i - 1];
        top.device[i] = top.device[i - 1];
      }
      if (place < 3) {
        top.time_us[place] = time;
        top.device[place] = d;
      }
    }
    slowest_[t] = top;
    score_ += top.time_us[0];
  }
}

std::size_t GemSearch::straggler() const {
  std::vector<int> times(devices_, 0);
  for (const auto& top : slowest_) {
    ++times[top.device[0]];
  }
  return static_cast<std::size_t>(std::ranges::max_element(times) - times.begin());
}

/// What the two add to the times beside them after a swap, over the steps; or infinity as soon as
/// it exceeds `most`.
double GemSearch::excess(std::size_t straggler, std::size_t partner, std::int32_t gives,
                         std::int32_t takes, double most) const {
  const auto given = load_.row(gives);
  const auto taken = load_.row(takes);
  const auto from = tokens_.row(straggler);
  const auto to = tokens_.row(partner);
  double sum = 0.0;
  for (const auto t : critical_) {
    const double shift = given[t] - taken[t];
    const double slower = std::max(tiles_.time_us(straggler, from[t] - shift),
                                   tiles_.time_us(partner, to[t] + shift));
    sum += std::max(slower - beside_[t], 0.0);
    if (sum > most) {
      return std::numeric_limits<double>::infinity();
    }
  }
  return sum;
}

void GemSearch::try_partner(std::size_t straggler, std::size_t partner, Swap& best) {
  double unavoidable = 0.0;
  for (std::size_t t = 0; t < steps_; ++t) {
    const auto& top = slowest_[t];
    std::size_t i = 0;
    while (i < 2 && (top.device[i] == straggler || top.device[i] == partner)) {
      ++i;
    }
    beside_[t] = top.time_us[i];
    unavoidable += beside_[t];
  }
  if (unavoidable > best.score) {
    return;
  }
  frame(straggler, partner, best.score - unavoidable);
  const auto experts = [&](const Swap& swap) {
    return std::tuple(expert_of_slot_[swap.slot], expert_of_slot_[swap.other]);
  };
  for (std::size_t slot = straggler * width_; slot < (straggler + 1) * width_; ++slot) {
    const auto expert = expert_of_slot_[slot];
    if (problem_.slots() > problem_.experts() && holds(partner, expert, width_)) {
      continue;
    }
    const auto& first = frames_.front();
    const double given = load_(expert, first.step);
    auto candidate =
        std::ranges::lower_bound(candidates_, given - first.most_shift, {}, &Candidate::load);
    for (; candidate != candidates_.end() && given - candidate->load >= first.least_shift;
         ++candidate) {
      const auto takes = expert_of_slot_[candidate->slot];
      if (std::ranges::any_of(frames_, [&](const Frame& frame) {
            const double shift = load_(expert, frame.step) - load_(takes, frame.step);
            return shift < frame.least_shift || shift > frame.most_shift;
          })) {
        continue;
      }
      const Swap swap{
          unavoidable + excess(straggler, partner, expert, takes, best.score - unavoidable), slot,
          candidate->slot};
      if (swap.score < best.score ||
          (swap.score == best.score && best.slot != best.other && experts(swap) < experts(best))) {
        best = swap;
      }
    }
  }
}

/// Which of the partner's slots may swap, and how much may go over in the most critical steps, so
/// that a single step alone does not exceed `most`.
void GemSearch::frame(std::size_t straggler, std::size_t partner, double most) {
  constexpr std::size_t kFrames = 3;
  constexpr double kSlack = 1e-6 * kGemTile;  // excess() judges exactly
  frames_.clear();
  for (std::size_t i = 0; i < std::min(kFrames, steps_); ++i) {
    const auto t = critical_[i];
    const double limit_us = beside_[t] + most;
    frames_.push_back({t,
                       tokens_(straggler, t) - tiles_.tokens_within(straggler, limit_us) - kSlack,
                       tiles_.tokens_within(partner, limit_us) - tokens_(partner, t) + kSlack});
  }
  candidates_.clear();
  for (std::size_t slot = partner * width_; slot < (partner + 1) * width_; ++slot) {
    if (problem_.slots() == problem_.experts() ||
        !holds(straggler, expert_of_slot_[slot], width_)) {
      candidates_.push_back({load_(expert_of_slot_[slot], critical_.front()), slot});
    }
  }
  std::ranges::sort(candidates_, {}, &Candidate::load);
}

/// The steps in which the straggler loses most first: there a bad swap shows soonest.
void GemSearch::sort_steps(std::size_t straggler) {
  std::iota(critical_.begin(), critical_.end(), std::size_t{0});
  std::ranges::stable_sort(critical_, std::greater<>{}, [&](std::size_t t) {
    const auto& top = slowest_[t];
    return time_us_(straggler, t) - top.time_us[top.device[0] == straggler ? 1 : 0];
  });
}

void GemSearch::improve(std::int64_t most_swaps) {
  const auto swaps_of_round = static_cast<std::int64_t>(width_ * (devices_ - 1) * width_);
  for (auto left = most_swaps; devices_ > 1 && left >= swaps_of_round; left -= swaps_of_round) {
    const auto slow = straggler();
    sort_steps(slow);
    Swap best{score_ * (1.0 - kRounding), 0, 0};
    for (std::size_t partner = 0; partner < devices_; ++partner) {
      if (partner != slow) {
        try_partner(slow, partner, best);
      }
    }
    if (best.slot == best.other) {
      return;
    }
    std::swap(expert_of_slot_[best.slot], expert_of_slot_[best.other]);
    sum_up(best.slot / width_);
    sum_up(best.other / width_);
    rank();
  }
}

}  // namespace moevar::placement
