#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "conditions/cap.hpp"
#include "fleet/draw.hpp"
#include "fleet/gpu_family.hpp"
#include "placement/placement.hpp"
#include "run/runner.hpp"
#include "run/sensors.hpp"
#include "system/gpu.hpp"

namespace moevar::run {

namespace {

/// Puts the place of a key before the message of whatever `work` throws.
template <class Work>
void blame(const study::ParsedStudy& parsed, std::string_view key, const Work& work) {
  try {
    work();
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", parsed.at(key), error.what()));
  }
}

void check_sizes(const study::ParsedStudy& parsed) {
  const auto& study = parsed.study;
  const int largest = std::ranges::max(study.fleet.devices);
  const bool budget =
      study.serves() &&
      study.serving.token_budget > std::int64_t{study.workload.tokens_per_device} * largest;
  const std::int64_t tokens = budget ? std::int64_t{study.serving.token_budget}
                                     : std::int64_t{study.workload.tokens_per_device} * largest;
  int slots = 0;
  for (const auto scaling : study.fleet.scaling) {
    slots = std::max(slots, study::slots_per_device(study, scaling, largest));
  }
  const std::int64_t on_one_device = tokens * std::min(study.model.top_k, slots);
  if (on_one_device > std::numeric_limits<std::uint32_t>::max()) {
    throw InputError(fmt::format(
        "{}: the {} tokens of a step could put {} on one device; at most {} can be counted",
        parsed.at(budget ? "serving.token_budget" : "workload.tokens_per_device"), tokens,
        on_one_device, std::numeric_limits<std::uint32_t>::max()));
  }
}

void check_placement_keys(const study::ParsedStudy& parsed, study::DeviceKind kind) {
  for (const auto& name : parsed.study.placement.policies) {
    blame(parsed, "placement.policies", [&] {
      if (placement::find_policy(name).per_step() && kind != study::DeviceKind::model) {
        throw InputError(
            fmt::format("{} plans every step anew; only \"model\" devices run it", name));
      }
      if (placement::find_policy(name).per_step() && parsed.study.phases.precision > 0.0) {
        throw InputError(fmt::format(
            "{} plans every step anew, and phases.precision leaves their number open; fix it with "
            "phases.steps",
            name));
      }
    });
  }
}

void check_conditions(const study::ParsedStudy& parsed, study::DeviceKind kind) {
  const auto& wanted = parsed.study.conditions;
  if (kind == study::DeviceKind::model) {
    const auto& family = fleet::find_family(parsed.study.fleet.preset);
    const conditions::CapLimits limits{family.cap_min_w, family.cap_max_w, family.cap_max_w};
    for (const double cap : wanted.power_cap_w) {
      blame(parsed, "conditions.power_cap_w",
            [&] { (void)conditions::requested_limit_w(limits, cap); });
    }
    return;
  }
  if (kind == study::DeviceKind::cuda || cpu_has_sensors()) {
    return;  // they know their own range
  }
  if (!wanted.power_cap_w.empty() || wanted.heat != std::vector{study::Heat::soaked}) {
    const auto* key = wanted.power_cap_w.empty() ? "conditions.heat" : "conditions.power_cap_w";
    throw InputError(fmt::format(
        "{}: CPU cores take no power cap and no heat; leave it out, or run \"model\" devices",
        parsed.at(key)));
  }
}

void check_device_keys(const study::ParsedStudy& parsed, study::DeviceKind kind) {
  const auto& study = parsed.study;
  const bool model = kind == study::DeviceKind::model;
  const bool cuda = kind == study::DeviceKind::cuda;
  if (study.record.telemetry_hz > 0.0 && !cuda &&
      (model ? !study.fleet.transient : !cpu_has_sensors())) {
    throw InputError(
        fmt::format("{}: {}; 0 is right", parsed.at("record.telemetry_hz"),
                    model ? "with fleet.transient = false no virtual time passes in which to sample"
                          : "CPU cores have no sensors to sample"));
  }
  for (const auto* key : {"fleet.spread", "fleet.homogeneous", "fleet.preset", "fleet.transient",
                          "fleet.pool", "fleet.draw", "fleet.fail_slow"}) {
    if (!model && parsed.origin.contains(key)) {
      throw InputError(fmt::format("{}: only modelled GPUs have it; leave it out on \"{}\" devices",
                                   parsed.at(key), to_string(kind)));
    }
  }
  for (const auto* key : {"phases.profile_devices", "phases.speed_models"}) {
    if (model && parsed.origin.contains(key)) {
      throw InputError(
          fmt::format("{}: speed models of modelled GPUs are computed, not measured; leave it out",
                      parsed.at(key)));
    }
  }
  for (const auto* key : {"fleet.precision", "fleet.exchange", "fleet.counts", "fleet.overlap",
                          "fleet.emulated_sms", "fleet.gpus", "fleet.share_gpu", "phases.l2"}) {
    if (!cuda && parsed.origin.contains(key)) {
      throw InputError(
          fmt::format(R"({}: only "cuda" devices have it; leave it out on "{}" devices)",
                      parsed.at(key), to_string(kind)));
    }
  }
}

/// What serving needs of devices and policies.
void check_serving(const study::ParsedStudy& parsed, study::DeviceKind kind) {
  const auto& study = parsed.study;
  if (!study.serves()) {
    return;
  }
  const auto refuse = [&](bool wrong, std::string_view key, std::string_view right) {
    if (wrong) {
      throw InputError(fmt::format("{}: {}", parsed.at(key), right));
    }
  };
  for (const auto& name : study.placement.policies) {
    refuse(placement::find_policy(name).per_step(), "placement.policies",
           fmt::format("{} plans every step anew, and serving knows no step before it comes; leave "
                       "it out",
                       name));
  }
  const bool model = kind == study::DeviceKind::model;
  refuse(kind == study::DeviceKind::cuda, "fleet.device",
         R"(requests are served by "model" and "cpu" devices)");
  refuse(!model && study.placement.recompute == study::Recompute::on_drift, "placement.recompute",
         R"(only "model" devices move experts while they serve; "between-phases" or "once")");
  refuse(study.record.telemetry_hz > 0.0, "record.telemetry_hz",
         "phases that serve requests take no telemetry; 0 is right");
  refuse(!model && study.serving.disturbance != study::Disturbance::none, "serving.disturbance",
         R"(only "model" devices can be slowed)");
  refuse(!model && study.serving.find_rate, "serving.find_rate",
         "a search takes many runs in real time, at low rates long ones; give serving.rates");
  refuse(model && study.conditions.heat != std::vector{study::Heat::soaked}, "conditions.heat",
         R"(requests are served in thermal steady state; "soaked" is right)");
}

/// Where fleets are drawn from: whole nodes must make up the pool.
void check_pool(const study::ParsedStudy& parsed) {
  const auto& fleet = parsed.study.fleet;
  if (fleet.pool == 0 && fleet.draw != study::Fleet{}.draw) {
    throw InputError(
        fmt::format("{}: nothing is drawn without a fleet.pool", parsed.at("fleet.draw")));
  }
  if (fleet.pool > 0) {
    blame(parsed, "fleet.pool",
          [&] { (void)fleet::draw_devices(parsed.study.seed, 0, fleet.pool, 1, fleet.draw); });
  }
}

/// Keys that a kind of workload has no use for: written down, they would promise what does not
/// happen.
void check_workload_keys(const study::ParsedStudy& parsed) {
  const bool synthetic = parsed.study.workload.kind == study::WorkloadKind::synthetic;
  const std::string kind = to_string(parsed.study.workload.kind);
  if (synthetic && !parsed.study.workload.path.empty()) {
    throw InputError(fmt::format(
        "{}: \"synthetic\" routing reads no file; leave it out, or set workload.kind to \"counts\" "
        "or \"tokens\"",
        parsed.at("workload.path")));
  }
  for (const auto* key : {"workload.skew", "workload.burst", "workload.drift"}) {
    if (!synthetic && parsed.origin.contains(key)) {
      throw InputError(
          fmt::format("{}: routing from \"{}\" has its own; leave it out", parsed.at(key), kind));
    }
  }
}

}  // namespace

void check_routing(const study::Study& study, const Segments& segments) {
  // what the counters of run noise hold (model_backend.cpp)
  constexpr std::int64_t kMostLayers = 1 << 14;
  constexpr std::int64_t kMostSteps = 1 << 26;
  constexpr std::int64_t kMostPhases = 1 << 24;
  const auto phases = study::phases_of(study);
  if (study.model.layers >= kMostLayers || segments.steps >= kMostSteps || phases >= kMostPhases) {
    throw InputError(fmt::format(
        "{} phases of {} steps with {} layers; under {} phases, {} steps and {} layers are "
        "possible",
        phases, segments.steps, study.model.layers, kMostPhases, kMostSteps, kMostLayers));
  }
}

study::DeviceKind resolve_device(const study::ParsedStudy& parsed) {
  const auto kind = parsed.study.fleet.device;
  return kind == study::DeviceKind::automatic ? study::DeviceKind::model : kind;
}

void check_devices(const study::ParsedStudy& parsed) {
  if (resolve_device(parsed) != study::DeviceKind::cuda) {
    return;
  }
  if (const auto why = gpu::why_none_visible(); !why.empty()) {
    throw EnvironmentError(fmt::format(
        R"({}: "cuda" devices cannot run here: {}; moevar doctor shows what can; "model" runs )"
        R"(modelled GPUs, "cpu" CPU cores)",
        parsed.at("fleet.device"), why));
  }
}

void check_study(const study::ParsedStudy& parsed) {
  const auto kind = resolve_device(parsed);
  blame(parsed, "fleet.preset", [&] { (void)fleet::find_family(parsed.study.fleet.preset); });
  check_workload_keys(parsed);
  check_placement_keys(parsed, kind);
  check_conditions(parsed, kind);
  check_device_keys(parsed, kind);
  check_serving(parsed, kind);
  check_pool(parsed);
  check_sizes(parsed);
}

}  // namespace moevar::run
