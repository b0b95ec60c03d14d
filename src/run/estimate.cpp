#include "run/estimate.hpp"

#include <algorithm>

#include "run/memory.hpp"
#include "run/sensors.hpp"

namespace moevar::run {

namespace {

constexpr double kSecondsPerCount = 30e-9;        // one expert's load sampled
constexpr double kSecondsPerDeviceLayer = 40e-9;  // a modelled device in one layer of a step
constexpr double kSecondsPerSlot = 2e-9;          // and each of its slots
constexpr double kSecondsRecorded = 300e-9;       // its timeline compressed and written, on rank 0
constexpr double kSecondsPerPhase = 0.02;         // files made safe on disk
constexpr double kFlopsPerCore = 30e9;            // SGEMM on one core
constexpr double kFlopsPerGpu = 300e12;           // grouped products in bf16, of an H100
constexpr double kSecondsPerGpuLayer = 200e-6;    // launches and an exchange
constexpr double kSecondsPerSoak = 0.3e-3;        // a modelled GPU brought to a thermal state
constexpr double kSearched = 10.0;                // runs of a search for a rate
constexpr double kAnswersAtOnce = 200.0;          // requests that a step of many serves
constexpr double kPromptsAtOnce = 3.0;            // where answers are one token
constexpr double kWindowsPerSoak = 3.0;           // a real one, in windows of steadiness

/// A phase that serves requests; one with recorded ones is taken to be like them.
double seconds_of_requests(const study::Study& study, study::DeviceKind kind,
                           const study::PhaseSpec& phase) {
  const auto& serving = study.serving;
  const double runs = serving.find_rate ? kSearched : 1.0;
  if (kind != study::DeviceKind::model) {
    return runs * serving.requests / (phase.rate.value_or(1.0) * phase.devices);
  }
  double answer = 0.0;
  for (const auto lengths : serving.lengths) {
    answer += (lengths == study::Lengths::sonnet     ? 128.0
               : lengths == study::Lengths::sharegpt ? 201.0
                                                     : serving.output_tokens) /
              static_cast<double>(serving.lengths.size());
  }
  const double steps = serving.requests * (serving.mode == study::ServingMode::prefill
                                               ? 1.0 / kPromptsAtOnce
                                               : std::max(answer / kAnswersAtOnce, 0.1));
  const double calls = steps * study.model.layers;
  return runs * calls *
             (phase.experts * kSecondsPerCount + phase.devices * kSecondsPerDeviceLayer) +
         kSecondsPerPhase;
}

double seconds_of(const study::Study& study, study::DeviceKind kind, const study::PhaseSpec& phase,
                  int ranks) {
  if (study.serves()) {
    return seconds_of_requests(study, kind, phase);
  }
  const double layers = study.model.layers;
  const int steps = most_steps(study.phases);
  const double measured = steps * layers;
  const double all = (steps + study.phases.warmup_steps) * layers;
  const double devices = phase.devices;
  if (kind == study::DeviceKind::model) {
    const double slots = phase.slots_per_device;
    const double sampled = phase.new_condition ? measured * phase.experts : 0.0;
    const double heat = phase.new_condition && study.fleet.transient ? devices : 0.0;
    return (sampled * kSecondsPerCount + heat * kSecondsPerSoak +
            measured * devices * (kSecondsPerDeviceLayer + slots * kSecondsPerSlot)) /
               ranks +
           (study.record.timelines ? measured * devices * kSecondsRecorded : 0.0) +
           kSecondsPerPhase;
  }
  const double flops = 6.0 * study.model.hidden * study.model.intermediate * study.model.top_k *
                       study.workload.tokens_per_device;
  const bool cuda = kind == study::DeviceKind::cuda;
  const double heat_s = phase.new_condition && !cuda && cpu_has_sensors()
                            ? std::min(kWindowsPerSoak * study.conditions.steady_window_s,
                                       study.conditions.heat_limit_s)
                            : 0.0;
  return all * (cuda ? flops / kFlopsPerGpu + kSecondsPerGpuLayer : flops / kFlopsPerCore) +
         heat_s + kSecondsPerPhase;
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
