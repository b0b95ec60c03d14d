#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/tensor.hpp"
#include "placement/copy_order.hpp"
#include "placement/policies.hpp"
#include "placement/replicas.hpp"

namespace moevar::placement {

namespace {

/// FlashLB's constants (vllm-ascend, policy_flashlb.py): a device's cost is mean + z·σ, z being the
/// normal distribution's 75th percentile; the tree over replica counts is 4 deep and 8 wide.
constexpr double kZ = 0.674;
constexpr std::size_t kDepth = 4;
constexpr std::size_t kWidth = 8;

/// Copies per expert, and what packing them costs.
struct Counts {
  std::vector<int> copies;  ///< [experts]
  double cost = 0.0;
};

class Packer {
 public:
  explicit Packer(const LayerProblem& problem)
      : experts_(static_cast<std::size_t>(problem.experts())),
        devices_(static_cast<std::size_t>(problem.devices())),
        width_(static_cast<std::size_t>(problem.slots_per_device())),
        mean_(experts_, 0.0),
        risk_(experts_),
        covariance_({experts_, experts_}),
        covariance_with_({devices_, experts_}),
        expert_of_slot_(devices_ * width_) {
    measure(problem);
  }

  [[nodiscard]] std::size_t experts() const noexcept { return experts_; }
  [[nodiscard]] int devices() const noexcept { return static_cast<int>(devices_); }

  /// mean + z·σ of one copy of an expert that has `copies`.
  [[nodiscard]] double risk(std::size_t expert, int copies) const { return risk_[expert] / copies; }

  /// Copies by falling risk, each to the device with a free slot whose cost it leaves lowest; those
  /// that hold the expert stand back. Returns the highest cost; slots() are the packing.
  double pack(const std::vector<int>& copies) {
    order_.clear();
    for (std::size_t e = 0; e < experts_; ++e) {
      order_.insert(order_.end(), static_cast<std::size_t>(copies[e]),
                    {static_cast<std::int32_t>(e), risk(e, copies[e])});
    }
    std::ranges::sort(order_, goes_before);
    on_.assign(devices_, {});
    std::ranges::fill(covariance_with_.flat(), 0.0);
    for (const auto& copy : order_) {
      place(static_cast<std::size_t>(copy.expert), copies[static_cast<std::size_t>(copy.expert)]);
    }
    double highest = 0.0;
    for (const auto& device : on_) {
      highest = std::max(highest, device.mean + kZ * std::sqrt(std::max(device.variance, 0.0)));
    }
    return highest;
  }
  [[nodiscard]] std::span<const std::int32_t> slots() const noexcept { return expert_of_slot_; }

 private:
  struct Device {
    double mean = 0.0;
    double variance = 0.0;
    std::size_t taken = 0;
  };

  void measure(const LayerProblem& problem) {
    const auto steps = static_cast<std::size_t>(problem.steps());
    for (std::size_t t = 0; t < steps; ++t) {
      const auto loads = problem.step(static_cast<int>(t));
      for (std::size_t e = 0; e < experts_; ++e) {
        mean_[e] += loads[e] / static_cast<double>(steps);
      }
    }
    std::vector<double> apart(experts_);
    for (std::size_t t = 0; t < steps && steps > 1; ++t) {
      const auto loads = problem.step(static_cast<int>(t));
      for (std::size_t e = 0; e < experts_; ++e) {
        apart[e] = (loads[e] - mean_[e]) / std::sqrt(static_cast<double>(steps));
      }
      for (std::size_t e = 0; e < experts_; ++e) {
        const auto row = covariance_.row(e);
        for (std::size_t other = 0; other < experts_; ++other) {
          row[other] += apart[e] * apart[other];
        }
      }
    }
    for (std::size_t e = 0; e < experts_; ++e) {
      risk_[e] = mean_[e] + kZ * std::sqrt(covariance_(e, e));
    }
  }

  void place(std::size_t expert, int copies) {
    const double part = 1.0 / copies;
    std::size_t best = devices_;
    bool best_holds = true;
    double best_cost = std::numeric_limits<double>::infinity();
    double best_variance = 0.0;
    for (std::size_t d = 0; d < devices_; ++d) {
      const auto& device = on_[d];
      if (device.taken == width_) {
        continue;
      }
      const bool holds = copies > 1 && holds_expert(d, expert);
      const double variance = device.variance + 2.0 * part * covariance_with_(d, expert) +
                              part * part * covariance_(expert, expert);
      const double cost =
          device.mean + part * mean_[expert] + kZ * std::sqrt(std::max(variance, 0.0));
      if (best == devices_ || (best_holds && !holds) || (holds == best_holds && cost < best_cost)) {
        best = d;
        best_holds = holds;
        best_cost = cost;
        best_variance = variance;
      }
    }
    auto& device = on_[best];
    expert_of_slot_[best * width_ + device.taken++] = static_cast<std::int32_t>(expert);
    device.mean += part * mean_[expert];
    device.variance = best_variance;
    const auto with = covariance_with_.row(best);
    const auto row = covariance_.row(expert);
    for (std::size_t other = 0; other < experts_; ++other) {
      with[other] += part * row[other];
    }
  }

  [[nodiscard]] bool holds_expert(std::size_t device, std::size_t expert) const {
    const auto there =
        std::span<const std::int32_t>(expert_of_slot_).subspan(device * width_, on_[device].taken);
    return std::ranges::find(there, static_cast<std::int32_t>(expert)) != there.end();
  }

  std::size_t experts_;
  std::size_t devices_;
  std::size_t width_;
  std::vector<double> mean_;        ///< [experts]
  std::vector<double> risk_;        ///< [experts], mean + z·σ
  Matrix<double> covariance_;       ///< [experts][experts], over the steps
  Matrix<double> covariance_with_;  ///< [devices][experts], of what a device holds with an expert
  std::vector<Device> on_;
  std::vector<Copy> order_;
  std::vector<std::int32_t> expert_of_slot_;
};

/// Spends `redundant` copies: the first on the expert that is `rank`-th by risk per copy, or the
/// last one with room, each further one on the first. Experts with a copy per device have no room
/// while another has fewer.
void spend(const Packer& packer, std::size_t redundant, std::size_t rank,
           std::vector<int>& copies) {
  std::vector<std::size_t> by_risk(packer.experts());
  for (std::size_t i = 0; i < redundant; ++i) {
    std::iota(by_risk.begin(), by_risk.end(), std::size_t{0});
    const auto with_room = static_cast<std::size_t>(
        std::ranges::count_if(copies, [&](int of_one) { return of_one < packer.devices(); }));
    const std::size_t last = (with_room > 0 ? with_room : copies.size()) - 1;
    const std::size_t wanted = i == 0 ? std::min(rank, last) : 0;
    const auto needier = [&](std::size_t a, std::size_t b) {
      const bool room_a = copies[a] < packer.devices();
      if (room_a != (copies[b] < packer.devices())) {
        return room_a;
      }
      const double risk_a = packer.risk(a, copies[a]);
      const double risk_b = packer.risk(b, copies[b]);
      return risk_a != risk_b ? risk_a > risk_b : a < b;
    };
    std::ranges::nth_element(by_risk, by_risk.begin() + static_cast<std::ptrdiff_t>(wanted),
                             needier);
    ++copies[by_risk[wanted]];
  }
}

/// Replica counts by a beam search: the redundant slots are spent in up to kDepth parts; a part has
/// kWidth variants, and the kWidth cheapest packings go on.
std::vector<int> best_counts(Packer& packer, std::size_t redundant) {
  const std::size_t levels = std::min(kDepth, redundant);
  std::vector<Counts> beam{{std::vector<int>(packer.experts(), 1), 0.0}};
  for (std::size_t level = 0; level < levels; ++level) {
    const std::size_t part = redundant * (level + 1) / levels - redundant * level / levels;
    std::vector<Counts> next;
    for (const auto& node : beam) {
      for (std::size_t rank = 0; rank < std::min(kWidth, packer.experts()); ++rank) {
        Counts child{node.copies, 0.0};
        spend(packer, part, rank, child.copies);
        if (std::ranges::find(next, child.copies, &Counts::copies) == next.end()) {
          child.cost = packer.pack(child.copies);
          next.push_back(std::move(child));
        }
      }
    }
    std::ranges::stable_sort(next, {}, &Counts::cost);
    next.resize(std::min(next.size(), kWidth));
    beam = std::move(next);
  }
  return beam.front().copies;
}

}  // namespace

void assign_flashlb(const LayerProblem& problem, LayerSlots slots) {
  Packer packer(problem);
  packer.pack(best_counts(packer, static_cast<std::size_t>(problem.slots() - problem.experts())));
  std::ranges::copy(packer.slots(), slots.expert.begin());
}

}  // namespace moevar::placement
