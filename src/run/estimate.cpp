#include "run/estimate.hpp"

#include <algorithm>

namespace moevar::run {

namespace {

constexpr double kSecondsPerCount = 30e-9;        // one expert's load sampled
constexpr double kSecondsPerDeviceLayer = 40e-9;  // a modelled device in one layer of a step
constexpr double kSecondsPerSlot = 2e-9;          // and each of its slots
constexpr double kSecondsRecorded = 300e-9;       // its timeline compressed and written, on rank 0
constexpr double kSecondsPerPhase = 0.02;         // files made safe on disk
constexpr double kFlopsPerCore = 30e9;            // SGEMM on one core

double seconds_of(const study::Study& study, study::DeviceKind kind, const study::PhaseSpec& phase,
                  int ranks) {
  const double layers = study.model.layers;
  const double measured = study.phases.steps * layers;
  const double all = (study.phases.steps + study.phases.warmup_steps) * layers;
  const double devices = phase.devices;
  if (kind == study::DeviceKind::model) {
    const double slots = (study.model.experts + study.placement.redundant_experts) / devices;
    const double sampled = phase.new_condition ? measured * study.model.experts : 0.0;
    return (sampled * kSecondsPerCount +
            measured * devices * (kSecondsPerDeviceLayer + slots * kSecondsPerSlot)) /
               ranks +
           (study.record.timelines ? measured * devices * kSecondsRecorded : 0.0) +
           kSecondsPerPhase;
  }
  const double flops = 6.0 * study.model.hidden * study.model.intermediate * study.model.top_k *
                       study.workload.tokens_per_device;
  return all * flops / kFlopsPerCore + kSecondsPerPhase;
}

}  // namespace

double estimate_seconds(const study::Study& study, study::DeviceKind kind,
                        std::span<const study::PhaseSpec> plan, int ranks) {
  double seconds = 0.0;
  for (const auto& phase : plan) {
    seconds += seconds_of(study, kind, phase, ranks);
  }
  return seconds;
}

}  // namespace moevar::run
