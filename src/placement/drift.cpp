#include "placement/drift.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

namespace moevar::placement {

namespace {

/// 1 − cos of two vectors of as many elements. Two that are zero are alike, one alone is as far as
/// can be.
double cosine_distance(std::span<const std::int64_t> a, std::span<const double> b) {
  double dot = 0.0;
  double norm_a = 0.0;
  double norm_b = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto value = static_cast<double>(a[i]);
    dot += value * b[i];
    norm_a += value * value;
    norm_b += b[i] * b[i];
  }
  if (norm_a == 0.0 || norm_b == 0.0) {
    return norm_a == norm_b ? 0.0 : 1.0;
  }
  return 1.0 - dot / std::sqrt(norm_a * norm_b);
}

/// Relative change from `before` to `now`; from nothing to something is infinite.
double relative_change(double before, double now) {
  return before == now ? 0.0 : now / before - 1.0;
}

/// The upper of the two middle ones of an even number. Reorders `values`, which are not none.
double median_of(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace

std::string describe(const LoadTrigger& trigger) {
  return trigger.kind == LoadTrigger::Kind::cosine
             ? fmt::format("cosine {:.3f} in layer {} after {} steps", trigger.value, trigger.layer,
                           trigger.steps)
             : fmt::format("magnitude {:+.2f} in layer {} after {} steps", trigger.value,
                           trigger.layer, trigger.steps);
}

LoadDrift::LoadDrift(int layers, int experts, const DriftOptions& options)
    : options_(options),
      window_({static_cast<std::size_t>(options.window),
               static_cast<std::size_t>(layers) * static_cast<std::size_t>(experts)}),
      sum_({static_cast<std::size_t>(layers), static_cast<std::size_t>(experts)}),
      reference_(sum_.shape()) {}

std::int64_t LoadDrift::kept() const noexcept {
  return std::min<std::int64_t>(steps_, options_.window);
}

void LoadDrift::solved(const Matrix<double>& planned) {
  if (steps_ == 0) {
    reference_ = planned;
  } else {
    reference_ = window_mean();
  }
  solved_at_ = steps_;
  if (trigger_) {
    quiet_until_ = steps_ + options_.check_every;
  }
  trigger_.reset();
}

Matrix<double> LoadDrift::window_mean() const {
  Matrix<double> mean(sum_.shape());
  std::ranges::transform(sum_.flat(), mean.flat().begin(), [&](std::int64_t tokens) {
    return static_cast<double>(tokens) / static_cast<double>(kept());
  });
  return mean;
}

void LoadDrift::step(std::span<const std::uint32_t> loads) {
  const auto row = window_.row(steps_ % options_.window);
  const bool full = steps_ >= options_.window;
  const auto sum = sum_.flat();
  for (std::size_t i = 0; i < loads.size(); ++i) {
    sum[i] += std::int64_t{loads[i]} - (full ? std::int64_t{row[i]} : 0);
    row[i] = loads[i];
  }
  ++steps_;
  if (!trigger_ && steps_ % options_.check_every == 0 && steps_ > quiet_until_ && enough()) {
    check();
  }
}

bool LoadDrift::enough() const {
  const auto layer = sum_.row(0);
  return static_cast<double>(std::accumulate(layer.begin(), layer.end(), std::int64_t{0})) >=
         options_.least_per_expert * static_cast<double>(layer.size());
}

void LoadDrift::check() {
  LoadTrigger furthest{LoadTrigger::Kind::cosine, 0.0, 0, steps_ - solved_at_};
  LoadTrigger changed{LoadTrigger::Kind::magnitude, 0.0, 0, steps_ - solved_at_};
  for (int layer = 0; layer < static_cast<int>(sum_.extent(0)); ++layer) {
    const auto now = sum_.row(layer);
    const auto before = reference_.row(layer);
    const double distance = cosine_distance(now, before);
    if (distance > furthest.value) {
      furthest.value = distance;
      furthest.layer = layer;
    }
    const double change = relative_change(
        std::accumulate(before.begin(), before.end(), 0.0),
        static_cast<double>(std::accumulate(now.begin(), now.end(), std::int64_t{0})) /
            static_cast<double>(kept()));
    if (std::abs(change) > std::abs(changed.value)) {
      changed.value = change;
      changed.layer = layer;
    }
  }
  if (furthest.value > options_.cosine) {
    trigger_ = furthest;
  } else if (std::abs(changed.value) > options_.magnitude) {
    trigger_ = changed;
  }
}

template <class Self, class Archive>
void LoadDrift::visit(Self& self, Archive& archive) {
  archive(self.steps_);
  archive(self.solved_at_);
  archive(self.quiet_until_);
  archive(self.window_);
  archive(self.sum_);
  archive(self.reference_);
}

void LoadDrift::save(ArchiveWriter& archive) const {
  visit(*this, archive);
  archive(trigger_.has_value());
  if (trigger_) {
    archive(trigger_->kind == LoadTrigger::Kind::cosine);
    archive(trigger_->value);
    archive(trigger_->layer);
    archive(trigger_->steps);
  }
}

void LoadDrift::restore(ArchiveReader& archive) {
  visit(*this, archive);
  if (steps_ < 0) {
    throw InputError("a saved state of loads has run a negative number of steps");
  }
  bool fired = false;
  archive(fired);
  trigger_.reset();
  if (fired) {
    auto& trigger = trigger_.emplace();
    bool cosine = false;
    archive(cosine);
    trigger.kind = cosine ? LoadTrigger::Kind::cosine : LoadTrigger::Kind::magnitude;
    archive(trigger.value);
    archive(trigger.layer);
    archive(trigger.steps);
  }
}

template <class Self, class Archive>
void ResidualDrift::visit(Self& self, Archive& archive) {
  archive(self.ratios_);
  archive(self.steps_);
  archive(self.reference_);
  archive(self.trigger_);
}

void ResidualDrift::save(ArchiveWriter& archive) const { visit(*this, archive); }

void ResidualDrift::restore(ArchiveReader& archive) { visit(*this, archive); }

void ResidualDrift::solved() {
  ratios_.clear();
  steps_ = 0;
  reference_.reset();
  trigger_.reset();
}

void ResidualDrift::step(const SpeedCurve& model, std::span<const std::uint32_t> tokens,
                         std::span<const std::int64_t> expert_ns) {
  if (trigger_) {
    return;
  }
  for (std::size_t layer = 0; layer < tokens.size(); ++layer) {
    const double predicted_us = tokens[layer] == 0 ? 0.0 : model.time_us(tokens[layer]);
    if (predicted_us > 0.0) {
      ratios_.push_back(1e-3 * static_cast<double>(expert_ns[layer]) / predicted_us);
    }
  }
  ++steps_;
  if (steps_ % options_.check_every != 0 ||
      ratios_.size() < static_cast<std::size_t>(options_.residual_calls)) {
    return;
  }
  const double residual = median_of(ratios_);
  ratios_.clear();
  if (!reference_) {
    reference_ = residual;
  } else if (std::abs(residual / *reference_ - 1.0) > options_.residual) {
    trigger_ = residual / *reference_;
  }
}

}  // namespace moevar::placement
