#include "run/placer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/archive.hpp"
#include "base/error.hpp"
#include "run/expert_cost.hpp"
#include "run/share.hpp"

namespace moevar::run {

namespace {

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }

/// `steps` of the steps, spread evenly, as policies take them: bursts last several steps, so
/// neighbours tell less.
Tensor<double, 3> spread(const workload::Loads& loads, int steps) {
  const std::size_t all = loads.extent(0);
  const std::size_t count = std::min(size_of(steps), all);
  Tensor<double, 3> trace({count, loads.extent(1), loads.extent(2)});
  for (std::size_t i = 0; i < count; ++i) {
    std::ranges::copy(loads.row((2 * i + 1) * all / (2 * count)), trace.row(i).begin());
  }
  return trace;
}

/// "residual: device 3 at 1.08 x its model"; the furthest where there are several, empty where
/// there is none.
std::string describe_residuals(std::span<const double> left) {
  std::size_t count = 0;
  std::size_t furthest = 0;
  double distance = 0.0;
  for (std::size_t d = 0; d < left.size(); ++d) {
    if (!std::isnan(left[d])) {
      ++count;
      if (std::abs(left[d] - 1.0) > distance) {
        distance = std::abs(left[d] - 1.0);
        furthest = d;
      }
    }
  }
  if (count == 0) {
    return {};
  }
  return fmt::format("residual: {}device {} at {:.2f} x its model",
                     count == 1 ? "" : fmt::format("{} devices, ", count), furthest,
                     left[furthest]);
}

}  // namespace

double Placer::range_of_models(const Matrix<double>& mean_loads, int slots) {
  // steps scatter about their mean, and loads drift after the profile
  constexpr double kRoom = 1.5;
  double heaviest = 0.0;
  for (std::size_t layer = 0; layer < mean_loads.extent(0); ++layer) {
    const auto row = mean_loads.row(layer);
    std::vector<double> loads(row.begin(), row.end());
    std::ranges::sort(loads, std::greater<>{});
    double sum = 0.0;
    for (std::size_t i = 0; i < loads.size() && i < size_of(slots); ++i) {
      sum += loads[i];
    }
    heaviest = std::max(heaviest, sum);
  }
  return kRoom * heaviest;
}

void Placer::profile(const study::PhaseSpec& phase, Backend& backend,
                     const Matrix<double>& mean_loads) {
  const int slots = phase.slots_per_device;
  speeds_ = backend.profile(slots, range_of_models(mean_loads, slots), {});
  ++profiles_;
}

void Placer::recall(placement::SpeedModels speeds) {
  speeds_ = std::move(speeds);
  ++profiles_;
}

/// Of the devices that left their models alone.
void Placer::profile_again(const study::PhaseSpec& phase, Backend& backend, const Plan& plan,
                           const Matrix<double>& mean_loads) {
  std::vector<DeviceId> devices;
  for (std::size_t d = 0; d < plan.left.size(); ++d) {
    if (!std::isnan(plan.left[d])) {
      devices.push_back(static_cast<DeviceId>(d));
    }
  }
  if (devices.empty()) {
    return;
  }
  const int slots = phase.slots_per_device;
  auto curves = backend.profile(slots, range_of_models(mean_loads, slots), devices);
  for (std::size_t i = 0; i < devices.size(); ++i) {
    speeds_[size_of(devices[i])] = std::move(curves[i]);
  }
  ++profiles_;
}

std::string Placer::reason_to_solve(const placement::Policy& policy, const Plan& plan) const {
  if (policy.per_step()) {
    return "every step";
  }
  if (study_.placement.recompute == study::Recompute::between_phases) {
    return "between-phases";
  }
  if (plan.placements.empty()) {
    return "first";
  }
  std::string reason;
  if (study_.placement.recompute == study::Recompute::on_drift) {
    mpi::on_root(comm_, [&] {
      const auto& trigger = plan.loads->trigger();
      reason = trigger ? describe(*trigger) : "";
      const auto residuals = describe_residuals(plan.left);
      reason += (reason.empty() || residuals.empty() ? "" : "; ") + residuals;
    });
    comm_.broadcast(reason);
  }
  return reason.empty() ? kKept : reason;
}

const std::vector<double>& Placer::bounds(const placement::Problem& problem,
                                          const study::PhaseSpec& phase) {
  const std::array key{phase.devices, phase.repeat + 1, profiles_, phase.experts,
                       phase.even_load ? 1 : 0};
  if (bounds_of_ != key) {
    bounds_ = placement::lower_bounds(problem, problem.slots_per_device);
    bounds_of_ = key;
  }
  return bounds_;
}

std::vector<placement::Placement> Placer::solve(const placement::Policy& policy,
                                                const study::PhaseSpec& phase,
                                                const PhaseLoads& loads, const Plan& before) {
  std::vector<placement::Placement> placements;
  mpi::on_root(comm_, [&] {
    const auto trace = policy.per_step()
                           ? spread(loads.measured, static_cast<int>(loads.measured.extent(0)))
                           : spread(loads.planned, study_.placement.trace_steps);
    const bool from = !policy.per_step() && !before.placements.empty();
    placement::Problem problem{.mean_loads = loads.mean,
                               .speeds = speeds_,
                               .devices = phase.devices,
                               .slots_per_device = phase.slots_per_device,
                               .seed = study_.seed,
                               .trace = &trace,
                               .from = from ? &before.placements.front() : nullptr};
    if (!policy.per_step()) {
      problem.lower_bound_us = &bounds(problem, phase);
    }
    placements = placement::solve_steps(policy, problem);
    for (const auto& placement : placements) {
      placement::check_placement(placement, phase.experts);
    }
    // the record holds the first one, with the means of all
    auto& first = placements.front();
    const auto mean_of = [&](std::vector<double> placement::Placement::*times) {
      std::vector<double> mean(first.predicted_us.size(), 0.0);
      for (const auto& placement : placements) {
        for (std::size_t layer = 0; layer < mean.size(); ++layer) {
          mean[layer] += (placement.*times)[layer] / static_cast<double>(placements.size());
        }
      }
      return mean;
    };
    if (placements.size() > 1) {
      auto predicted = mean_of(&placement::Placement::predicted_us);
      first.lower_bound_us = mean_of(&placement::Placement::lower_bound_us);
      first.predicted_us = std::move(predicted);
      for (std::size_t step = 1; step < placements.size(); ++step) {
        first.solve_ms += placements[step].solve_ms;
      }
    }
  });
  placements.resize(policy.per_step() ? loads.measured.extent(0) : 1);
  for (auto& placement : placements) {
    share(comm_, placement);
  }
  return placements;
}

Placing Placer::place(const study::PhaseSpec& phase, Backend& backend, const PhaseLoads& loads) {
  const auto& policy = placement::find_policy(phase.policy);
  release_steps();
  release_other_draws(phase);
  auto& plan = plans_[key_of(phase)];
  Placing placing;
  placing.because = reason_to_solve(policy, plan);
  placing.per_step = policy.per_step();
  if (placing.because == kKept) {
    plan.placements.front().solve_ms = 0.0;
  } else {
    profile_again(phase, backend, plan, loads.mean);
    plan.placements = solve(policy, phase, loads, plan);
    if (watches(phase)) {
      start_watch(plan, loads, backend.mine());
    }
  }
  placing.placements = plan.placements;
  placing.migration = policy.per_step() ? moves_of_steps(policy, phase, loads, plan)
                                        : backend.move_to(plan.placements.front());
  return placing;
}

std::size_t Placer::placements_kept() const {
  std::size_t kept = 0;
  for (const auto& [of, plan] : plans_) {
    kept += plan.placements.size();
  }
  return kept;
}

/// Plans of single steps serve one phase and are the largest by far.
void Placer::release_steps() {
  for (auto& [of, plan] : plans_) {
    if (placement::find_policy(std::get<std::string>(of)).per_step()) {
      plan.placements = {};
    }
  }
}

void Placer::release_other_draws(const study::PhaseSpec& phase) {
  if (study_.fleet.pool > 0 && phase.repeat != std::exchange(repeat_, phase.repeat)) {
    plans_.clear();
  }
}

bool Placer::watches(const study::PhaseSpec& phase) const {
  return study_.placement.recompute == study::Recompute::on_drift &&
         !placement::find_policy(phase.policy).per_step();
}

Migration Placer::moves_of_steps(const placement::Policy& policy, const study::PhaseSpec& phase,
                                 const PhaseLoads& loads, const Plan& plan) const {
  Migration migration;
  mpi::on_root(comm_, [&] {
    std::optional<placement::Placement> home;
    if (policy.from_home) {
      home = placement::solve(placement::find_policy("contiguous"),
                              {.mean_loads = loads.mean,
                               .speeds = speeds_,
                               .devices = phase.devices,
                               .slots_per_device = phase.slots_per_device,
                               .seed = study_.seed});
    }
    for (std::size_t step = home ? 0 : 1; step < plan.placements.size(); ++step) {
      const auto& from = home ? *home : plan.placements[step - 1];
      const auto& to = plan.placements[step];
      migration.moved_experts += std::ranges::count_if(
          placement::moves_between(from, to), [&](const placement::Move& move) {
            return to.share_of_slot(move.layer, move.to_slot) > 0.0;  // else nothing needs it there
          });
    }
  });
  comm_.broadcast(std::span(&migration.moved_experts, 1));
  migration.bytes = migration.moved_experts * expert_bytes(study_.model);
  return migration;
}

void Placer::start_watch(Plan& plan, const PhaseLoads& loads, DeviceRange mine) const {
  plan.speeds.assign(speeds_.begin() + mine.begin, speeds_.begin() + mine.end);
  plan.left.clear();
  plan.residuals.resize(size_of(mine.size()));
  for (auto& residual : plan.residuals) {
    residual.solved();
  }
  if (comm_.is_root()) {
    if (!plan.loads) {
      plan.loads.emplace(static_cast<int>(loads.mean.extent(0)),
                         static_cast<int>(loads.mean.extent(1)));
    }
    plan.loads->solved(loads.mean);
  }
}

void Placer::watch(const study::PhaseSpec& phase, const workload::Loads& measured,
                   const timeline::Timeline& mine) {
  if (!watches(phase)) {
    return;
  }
  auto& plan = plans_.at(key_of(phase));
  for (std::size_t step = 0; step < mine.steps(); ++step) {
    if (plan.loads) {
      plan.loads->step(measured.row(step));
    }
    for (std::size_t d = 0; d < plan.residuals.size(); ++d) {
      plan.residuals[d].step(plan.speeds[d], mine.tokens.row(d, step), mine.expert_ns.row(d, step));
    }
  }
  std::vector<double> left;
  for (const auto& residual : plan.residuals) {
    left.push_back(residual.trigger().value_or(std::numeric_limits<double>::quiet_NaN()));
  }
  plan.left.resize(size_of(phase.devices));
  comm_.all_gather(std::span<const double>(left), plan.left);
}

// The loads' part, rank 0's, then the devices' in their order, which is the ranks'.
std::string Placer::state(const study::PhaseSpec& phase) const {
  if (!watches(phase)) {
    return {};
  }
  const auto& plan = plans_.at(key_of(phase));
  ArchiveWriter archive;
  if (plan.loads) {
    plan.loads->save(archive);
  }
  for (const auto& residual : plan.residuals) {
    residual.save(archive);
  }
  std::string all;
  for (const auto& part : comm_.all_gather(std::move(archive).take())) {
    all += comm_.is_root() ? part : "";
  }
  return all;
}

void Placer::restore(const study::PhaseSpec& phase, placement::Placement placement,
                     const placement::SpeedModels& speeds, DeviceRange mine,
                     const std::string& state) {
  release_other_draws(phase);
  auto& plan = plans_[key_of(phase)];
  const int layers = placement.layers();
  plan.placements = {std::move(placement)};
  if (!watches(phase)) {
    return;
  }
  ArchiveReader archive(state);
  placement::LoadDrift loads(layers, phase.experts);
  loads.restore(archive);
  if (comm_.is_root()) {
    plan.loads = std::move(loads);
  }
  for (DeviceId device = 0; device < phase.devices; ++device) {
    placement::ResidualDrift residual;
    residual.restore(archive);
    plan.left.push_back(residual.trigger().value_or(std::numeric_limits<double>::quiet_NaN()));
    if (device >= mine.begin && device < mine.end) {
      plan.residuals.push_back(std::move(residual));
      plan.speeds.push_back(speeds.at(size_of(device)));
    }
  }
  if (!archive.at_end()) {
    throw InputError("the saved state of a placement is of another fleet");
  }
}

}  // namespace moevar::run
