#include "run/rearranger.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "run/share.hpp"

namespace moevar::run {

namespace {

placement::DriftOptions options() {
  constexpr double kLeastPerExpert = 100.0;  // their own scatter is a tenth of the threshold then
  placement::DriftOptions options;
  options.least_per_expert = kLeastPerExpert;
  options.magnitude = std::numeric_limits<double>::infinity();
  return options;
}

}  // namespace

Rearranger::Rearranger(const mpi::Communicator& comm, const study::Study& study,
                       const study::PhaseSpec& phase, Backend& backend,
                       placement::SpeedModels speeds, const Matrix<double>& planned,
                       placement::Placement placement)
    : comm_(comm),
      study_(study),
      phase_(phase),
      backend_(backend),
      speeds_(std::move(speeds)),
      placement_(std::move(placement)),
      loads_(static_cast<int>(planned.extent(0)), static_cast<int>(planned.extent(1)), options()) {
  loads_.solved(planned);
}

double Rearranger::model_us(std::size_t device, std::size_t layer,
                            std::span<const std::uint32_t> loads) const {
  const auto slots = static_cast<std::size_t>(placement_.slots_per_device);
  const std::size_t experts = loads.size() / static_cast<std::size_t>(placement_.layers());
  const auto of_layer = loads.subspan(layer * experts, experts);
  const auto held = placement_.expert_of_slot.row(layer).subspan(device * slots, slots);
  const auto shares = placement_.share_of_slot.row(layer).subspan(device * slots, slots);
  double sum_us = 0.0;
  for (std::size_t slot = 0; slot < slots; ++slot) {
    const double tokens = shares[slot] * of_layer[static_cast<std::size_t>(held[slot])];
    if (tokens > 0.0) {
      sum_us += speeds_[device].time_us(tokens * static_cast<double>(slots));
    }
  }
  return sum_us / static_cast<double>(slots);
}

// Every rank watches all devices, so that all come to the same decision. Half of the devices of an
// even number may be slow: then all look changed against the middle, and all are profiled.
void Rearranger::watch_speeds(std::int64_t step_tokens, std::span<const std::uint32_t> loads,
                              const timeline::Timeline& mine) {
  const auto devices = speeds_.size();
  const auto layers = mine.layers();
  std::vector<Nanoseconds> expert_ns(devices * layers);
  comm_.all_gather(mine.expert_ns.flat(), std::span(expert_ns));
  std::vector<std::vector<double>> ratios(devices, std::vector<double>(layers));
  std::vector<double> sorted;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    sorted.clear();
    for (std::size_t d = 0; d < devices; ++d) {
      const double foreseen_us = model_us(d, layer, loads);
      if (foreseen_us > 0.0) {
        ratios[d][layer] = 1e-3 * static_cast<double>(expert_ns[d * layers + layer]) / foreseen_us;
        sorted.push_back(ratios[d][layer]);
      }
    }
    std::ranges::sort(sorted);
    const double middle =
        sorted.empty() ? 1.0 : 0.5 * (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]);
    for (auto& of_device : ratios) {
      of_device[layer] /= middle;
    }
  }
  // half octaves
  const auto size = static_cast<int>(2.0 * std::log2(static_cast<double>(step_tokens)));
  auto& watches = watches_[size];
  watches.resize(devices, SpeedWatch(layers));
  for (std::size_t d = 0; d < devices; ++d) {
    watches[d].step(ratios[d]);
  }
}

std::map<DeviceId, double> Rearranger::left_their_models() const {
  std::map<DeviceId, double> left;
  for (const auto& [size, watches] : watches_) {
    for (std::size_t d = 0; d < watches.size(); ++d) {
      if (const auto change = watches[d].left()) {
        left.try_emplace(static_cast<DeviceId>(d), *change);
      }
    }
  }
  return left;
}

std::string Rearranger::reason(const std::map<DeviceId, double>& left) const {
  std::string reason = loads_.trigger() ? describe(*loads_.trigger()) : "";
  for (const auto& [device, residual] : left) {
    reason += fmt::format("{}residual: device {} at {:.2f} x its model", reason.empty() ? "" : "; ",
                          device, residual);
  }
  return reason;
}

void Rearranger::profile_again(const std::map<DeviceId, double>& left) {
  std::vector<DeviceId> devices;
  devices.reserve(left.size());
  for (const auto& one : left) {
    devices.push_back(one.first);
  }
  auto curves = backend_.profile(phase_.slots_per_device, speeds_.front().grid().back(), devices);
  for (std::size_t i = 0; i < devices.size(); ++i) {
    speeds_[static_cast<std::size_t>(devices[i])] = std::move(curves[i]);
  }
}

Matrix<double> Rearranger::loads_to_plan_for() const {
  double sum = 0.0;
  double squares = 0.0;
  for (const double tokens : step_tokens_) {
    sum += tokens;
    squares += tokens * tokens;
  }
  const double scale = squares * static_cast<double>(step_tokens_.size()) / (sum * sum);
  auto loads = loads_.window_mean();
  for (double& load : loads.flat()) {
    load *= scale;
  }
  return loads;
}

void Rearranger::solve() {
  mpi::on_root(comm_, [&] {
    const auto mean_loads = loads_to_plan_for();
    placement_ = placement::solve(placement::find_policy(phase_.policy),
                                  {.mean_loads = mean_loads,
                                   .speeds = speeds_,
                                   .devices = phase_.devices,
                                   .slots_per_device = phase_.slots_per_device,
                                   .seed = study_.seed,
                                   .from = &placement_});
    placement::check_placement(placement_, phase_.experts);
  });
  share(comm_, placement_);
}

std::optional<record::Rearrangement> Rearranger::step(std::int64_t tokens,
                                                      std::span<const std::uint32_t> loads,
                                                      const timeline::Timeline& mine) {
  loads_.step(loads);
  step_tokens_.push_back(static_cast<double>(tokens));
  if (step_tokens_.size() > static_cast<std::size_t>(options().window)) {
    step_tokens_.pop_front();
  }
  watch_speeds(tokens, loads, mine);
  const auto left = left_their_models();
  if (!loads_.trigger() && left.empty()) {
    return std::nullopt;
  }
  record::Rearrangement done;
  done.because = reason(left);
  done.of_loads = loads_.trigger().has_value();
  for (const auto& one : left) {
    done.devices.push_back(one.first);
  }
  if (!left.empty()) {
    profile_again(left);
  }
  solve();
  const auto migration = backend_.move_to(placement_);
  done.moved_experts = migration.moved_experts;
  done.migrate_ms = migration.time_ms;
  loads_.solved(loads_.window_mean());
  watches_.clear();
  return done;
}

}  // namespace moevar::run
