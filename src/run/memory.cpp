#include "run/memory.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "base/error.hpp"
#include "placement/drift.hpp"
#include "placement/placement.hpp"
#include "system/affinity.hpp"

namespace moevar::run {

namespace {

bool plans_every_step(const study::Study& study) {
  return std::ranges::any_of(study.placement.policies, [](const auto& name) {
    return placement::find_policy(name).per_step();
  });
}

/// Slots of a step's own placement, over all devices. A policy that starts from where experts lie
/// adds what devices fetch: on DeepSeek-V3's recorded counts (prefill_in4096), 4096 tokens a
/// device, harmoeny's fullest device of 8 ... 256 fetched 3 to 9.
double slots_of_step(const study::Study& study, const study::PhaseSpec& phase) {
  constexpr double kFetched = 9.0;
  const bool fetch = std::ranges::any_of(study.placement.policies, [](const auto& name) {
    return placement::find_policy(name).from_home;
  });
  return (phase.slots_per_device + (fetch ? kFetched : 0.0)) * phase.devices;
}

/// What policies are planned for, each by itself: a fleet with its loads.
using Setting = std::tuple<int, study::Scaling, bool, bool>;

/// Slots over all devices of each setting; repeats have the same ones.
std::map<Setting, double> slots_of(std::span<const study::PhaseSpec> plan) {
  std::map<Setting, double> slots;
  for (const auto& phase : plan) {
    slots[{phase.devices, phase.scaling, phase.even_load, phase.equal_fleet}] =
        1.0 * phase.slots_per_device * phase.devices;
  }
  return slots;
}

/// Expert and share of every slot, kept for every policy in every setting, and for every step of a
/// phase where one plans each anew.
double placement_bytes(const study::Study& study, const study::PhaseSpec& phase,
                       const std::map<Setting, double>& slots) {
  constexpr double kSlotBytes = sizeof(std::int32_t) + sizeof(double);
  double kept = 0.0;
  for (const auto& [setting, count] : slots) {
    kept += count * static_cast<double>(study.placement.policies.size());
  }
  const double of_steps =
      plans_every_step(study) ? slots_of_step(study, phase) * most_steps(study.phases) : 0.0;
  return kSlotBytes * study.model.layers * (kept + of_steps);
}

/// What rank 0 alone plans with: a trace, and the loads in which drift is looked for.
double planning_bytes(const study::Study& study, const study::PhaseSpec& phase,
                      std::size_t settings) {
  const auto& spec = study.placement;
  const int steps = most_steps(study.phases);
  const double trace = plans_every_step(study) ? steps : std::min(steps, spec.trace_steps);
  const double watched =
      spec.recompute == study::Recompute::on_drift
          ? static_cast<double>(spec.policies.size() * settings) * placement::DriftOptions{}.window
          : 0.0;
  return (8.0 * trace + 4.0 * watched) * study.model.layers * phase.experts;
}

/// On a node with `ranks_here` of the `ranks`.
double bytes_needed(const study::Study& study, const study::PhaseSpec& phase,
                    const std::map<Setting, double>& slots, int ranks_here, int ranks) {
  const double calls = 1.0 * most_steps(study.phases) * study.model.layers;
  const double devices = phase.devices;
  const double here = devices * ranks_here / ranks;
  // blocks of steps are joined at the end, and are there twice then
  const double timelines = (study.phases.precision > 0.0 ? 2.0 : 1.0) * 44.0 * here;
  const double loads = 4.0 * phase.experts;
  return calls * (2.0 * loads * ranks_here + timelines + 8.0 * devices) +
         placement_bytes(study, phase, slots) * ranks_here +
         planning_bytes(study, phase, slots.size());
}

}  // namespace

void check_memory(const mpi::Communicator& comm, const study::Study& study,
                  std::span<const study::PhaseSpec> plan) {
  const auto node = comm.split_by_node();
  mpi::on_all(comm, [&] {
    const auto slots = slots_of(plan);
    const auto bytes = [&](const study::PhaseSpec& phase) {
      return bytes_needed(study, phase, slots, node.size(), comm.size());
    };
    const auto largest = std::ranges::max_element(plan, {}, bytes);
    const auto available = static_cast<double>(affinity::available_memory_bytes());
    if (bytes(*largest) > available) {
      throw EnvironmentError(fmt::format(
          "{} steps × {} layers × {} experts on {} devices need {:.0f} GiB on host {}, which has "
          "{:.0f} GiB; fewer steps a phase (phases.steps), layers or devices, or more nodes",
          most_steps(study.phases), study.model.layers, largest->experts, largest->devices,
          bytes(*largest) / 0x1p30, affinity::host_name(), available / 0x1p30));
    }
  });
}

}  // namespace moevar::run
