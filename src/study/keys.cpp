#include "study/keys.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/text.hpp"
#include "study/key_kinds.hpp"
#include "study/model_presets.hpp"

namespace moevar::study {

namespace {

void read_preset(Study& study, const toml::node& node) {
  const auto name = node.value<std::string>();
  std::vector<std::string_view> names;
  for (const auto& preset : model_presets()) {
    if (name && preset.preset == *name) {
      study.model = preset;
      return;
    }
    names.push_back(preset.preset);
  }
  wrong(node, fmt::format("a model preset; nearest: {}; there are {}",
                          nearest(name.value_or(""), names), one_of(names)));
}

/// A CUDA ordinal or a UUID, as text.
std::string read_gpu(const toml::node& node) {
  constexpr auto kRight = R"(a CUDA ordinal from 0 to 1023, or a UUID, as in [0, "GPU-…"])";
  if (const auto ordinal = node.is_integer() ? node.value<std::int64_t>() : std::nullopt) {
    if (*ordinal < 0 || *ordinal > 1023) {
      wrong(node, kRight);
    }
    return fmt::format("{}", *ordinal);
  }
  const auto text = node.value<std::string>();
  if (!node.is_string() || !text || (!text->starts_with("GPU-") && !text->starts_with("MIG-"))) {
    wrong(node, kRight);
  }
  return *text;
}

std::string write_gpu(const std::string& gpu) {
  return gpu.find('-') == std::string::npos ? gpu : quoted(gpu);
}

constexpr Range<std::int64_t> kSize{1, 1 << 24};
constexpr Range<std::int64_t> kDevices{1, 1 << 20};

// NOLINTBEGIN(bugprone-macro-parentheses): a member's path cannot stand in parentheses
#define MEMBER(path) \
  [](auto& study) -> auto& { return study.path; }
// NOLINTEND(bugprone-macro-parentheses)

std::vector<Key> study_keys() {
  return {
      text_key("study.name", MEMBER(name), "name of the study"),
      integer_key("study.seed", MEMBER(seed), {0, std::int64_t{1} << 62},
                  "seed of every random number"),
      integer_key("study.repeats", MEMBER(repeats), {1, 100'000}, "how often every cell runs"),
      word_key<Order>("study.order", MEMBER(order), "order of the phases within a repeat"),
      flag_key(
          "study.causes", MEMBER(causes),
          "every cell also with all experts equally popular, with all modelled GPUs equal, and "
          "with both: what splits the straggler tax into its causes"),
  };
}

std::vector<Key> model_keys() {
  return {
      {"model.preset", "a published model's shape; the other keys of [model] change single sizes",
       read_preset,
       [](const Study& study) {
         return study.model.preset.empty() ? std::string{} : quoted(study.model.preset);
       }},
      integer_key("model.hidden", MEMBER(model.hidden), kSize, "hidden size"),
      integer_key("model.intermediate", MEMBER(model.intermediate), kSize,
                  "intermediate size of one expert"),
      integer_key("model.experts", MEMBER(model.experts), kSize, "routed experts of a layer"),
      integer_key("model.top_k", MEMBER(model.top_k), {1, 1024}, "experts of a token"),
      integer_key("model.layers", MEMBER(model.layers), {0, 10'000},
                  "MoE layers of a step (0: as many as workload.path has)"),
  };
}

std::vector<Key> workload_keys() {
  return {
      word_key<WorkloadKind>("workload.kind", MEMBER(workload.kind), "where routing comes from"),
      number_key("workload.skew", MEMBER(workload.skew), {0.0, 10.0},
                 "synthetic: Zipf exponent around which each layer's is drawn"),
      number_key("workload.burst", MEMBER(workload.burst), {0.0, 1.0},
                 "synthetic: share of experts that burst together in groups"),
      number_key("workload.drift", MEMBER(workload.drift), {0.0, 1.0},
                 "synthetic: share of the popularity exchanged per step"),
      text_key("workload.path", MEMBER(workload.path),
               "counts and tokens: the recorded file, relative to where moevar is started"),
      integer_key("workload.tokens_per_device", MEMBER(workload.tokens_per_device),
                  {1, std::int64_t{1} << 24}, "tokens that each device brings to a step"),
  };
}

std::vector<Key> fleet_keys() {
  return {
      word_key<DeviceKind>("fleet.device", MEMBER(fleet.device), "what runs the layers"),
      text_key("fleet.preset", MEMBER(fleet.preset), "model: the GPU family"),
      list_key<int>(
          "fleet.devices", MEMBER(fleet.devices),
          [](const toml::node& node) { return static_cast<int>(read_integer(node, kDevices)); },
          [](int value) { return fmt::format("{}", value); }, {},
          fmt::format("fleet sizes, each {}", kDevices.text())),
      number_key("fleet.spread", MEMBER(fleet.spread), {0.0, 10.0},
                 "model: how far GPUs differ, 1 as measured on TACC Longhorn"),
      flag_key("fleet.homogeneous", MEMBER(fleet.homogeneous), "model: all GPUs nominal"),
      flag_key("fleet.fail_slow", MEMBER(fleet.fail_slow),
               "model: one GPU in 1000 is 1.1 to 2 times slower for no visible reason"),
      flag_key("fleet.transient", MEMBER(fleet.transient),
               "model: heat and clocks in time; false: every phase at once in its steady state"),
      integer_key("fleet.pool", MEMBER(fleet.pool), {0, kDevices.high},
                  "model: larger fleet from which every repeat draws at random; fleet sizes take "
                  "the draw's first devices, each in up to pool ÷ (4 × size) repeats (0: none)"),
      word_key<Draw>("fleet.draw", MEMBER(fleet.draw),
                     "what is drawn from the pool: whole nodes, or single devices, which then form "
                     "new nodes"),
      list_key<Scaling>(
          "fleet.scaling", MEMBER(fleet.scaling), read_word<Scaling>,
          [](Scaling scaling) { return quoted(word_of(scaling)); }, {},
          fmt::format("experts as fleets grow, fixed or in proportion: {}",
                      fmt::join(words<Scaling>(), ", "))),
      integer_key("fleet.experts_per_device", MEMBER(fleet.experts_per_device), {1, 1 << 20},
                  "weak scaling: routed experts of a layer ÷ devices"),
      list_key<std::string>(
          "fleet.gpus", MEMBER(fleet.gpus), read_gpu, write_gpu,
          {.may_be_empty = true, .may_repeat = true},
          "cuda: the GPUs that a node's ranks take in turn, CUDA ordinals or UUIDs; empty: all "
          "that a rank sees, by local rank"),
      flag_key("fleet.share_gpu", MEMBER(fleet.share_gpu),
               "cuda: ranks may have the same GPU; without it that is refused"),
      word_key<Precision>("fleet.precision", MEMBER(fleet.precision),
                          "cuda: what experts' weights and products are in"),
      word_key<ExchangePath>("fleet.exchange", MEMBER(fleet.exchange),
                             "cuda: how rows travel between ranks; auto: NCCL where every rank has "
                             "a GPU of its own, else through the host and MPI"),
      word_key<ExchangeCounts>("fleet.counts", MEMBER(fleet.counts),
                               "cuda: whether ranks know from the plan how many rows come, or are "
                               "told first, as by a router"),
      word_key<Overlap>("fleet.overlap", MEMBER(fleet.overlap),
                        "cuda: whether a device's tokens go through a layer in two batches, one "
                        "travelling while the other's experts compute"),
      list_key<int>(
          "fleet.emulated_sms", MEMBER(fleet.emulated_sms),
          [](const toml::node& node) {
            return static_cast<int>(read_integer(node, {1, 1024}));
          },
          [](int value) { return fmt::format("{}", value); },
          {.may_be_empty = true, .may_repeat = true},
          "cuda: each rank's GPU stands for several devices, parts of so many multiprocessors: "
          "emulation"),
  };
}

std::vector<Key> condition_keys() {
  constexpr Range<double> watts{1.0, 10'000.0};
  return {
      list_key<double>(
          "conditions.power_cap_w", MEMBER(conditions.power_cap_w),
          [watts](const toml::node& node) { return read_number(node, watts); }, number,
          {.may_be_empty = true},
          fmt::format("power caps, W, each {}; empty: the device's own limit", watts.text())),
      list_key<Heat>(
          "conditions.heat", MEMBER(conditions.heat), read_word<Heat>,
          [](Heat heat) { return quoted(word_of(heat)); }, {},
          fmt::format("thermal states: {}", fmt::join(words<Heat>(), ", "))),
      word_key<CapMode>("conditions.caps", MEMBER(conditions.caps),
                        "real GPUs: moevar sets caps, checks those that are there, or notes them"),
      number_key("conditions.steady_window_s", MEMBER(conditions.steady_window_s), {0.1, 3600.0},
                 "time over which temperature and clock must hold still to count as steady"),
      number_key("conditions.heat_limit_s", MEMBER(conditions.heat_limit_s), {0.0, 86'400.0},
                 "longest wait for that; then the phase goes on and is labelled"),
  };
}

std::vector<Key> placement_keys() {
  return {
      list_key<std::string>("placement.policies", MEMBER(placement.policies), read_text, quoted, {},
                            "placement policies to compare"),
      integer_key("placement.redundant_experts", MEMBER(placement.redundant_experts), {0, 1 << 20},
                  "slots beyond one per expert, over all devices: replicas"),
      flag_key("placement.fill_slots", MEMBER(placement.fill_slots),
               "more redundant experts where it takes them for every device to hold as many slots"),
      integer_key("placement.trace_steps", MEMBER(placement.trace_steps), {1, 1'000'000},
                  "steps, evenly spread, that policies see one by one beside the mean"),
      word_key<Recompute>("placement.recompute", MEMBER(placement.recompute),
                          "when rank 0 solves again"),
  };
}

std::vector<Key> phase_keys() {
  return {
      integer_key("phases.steps", MEMBER(phases.steps), {1, 10'000'000},
                  "measured steps of a phase"),
      integer_key("phases.warmup_steps", MEMBER(phases.warmup_steps), {0, 10'000'000},
                  "steps before them, not recorded"),
      number_key(
          "phases.precision", MEMBER(phases.precision), {0.0, 1.0},
          "go on, `steps` at a time, until the medians' 95 % intervals reach no further than "
          "this part of the median to either side; 0: `steps` steps"),
      integer_key("phases.max_steps", MEMBER(phases.max_steps), {1, 10'000'000},
                  "the most steps that takes"),
      number_key("phases.time_limit_s", MEMBER(phases.time_limit_s), {0.0, 1e6},
                 "the longest time that takes, on the phase's own clock, looked at between blocks; "
                 "0: none"),
      word_key<Profiling>("phases.profile", MEMBER(phases.profile),
                          "when speed models are measured: at every condition, or once a fleet"),
      word_key<ProfiledDevices>("phases.profile_devices", MEMBER(phases.profile_devices),
                                "real devices: whether speed models are measured on all at once, "
                                "or on each while the others idle"),
      text_key("phases.speed_models", MEMBER(phases.speed_models),
               "real devices: the folder of a finished run whose speed models are taken where "
               "devices, driver, cap, heat and shape are the same"),
      word_key<L2>("phases.l2", MEMBER(phases.l2),
                   "cuda: the L2 cache when a step begins, as it was left or emptied"),
      number_key("record.telemetry_hz", MEMBER(record.telemetry_hz), {0.0, 1000.0},
                 "sampling rate of power, clock and temperature; 0: none"),
      flag_key("record.timelines", MEMBER(record.timelines),
               "keep every device's timeline, not only totals"),
  };
}

std::vector<Key> serving_keys() {
  constexpr Range<double> kRate{1e-6, 1e9};
  constexpr Range<double> kPart{0.0, 1.0};
  constexpr Range<double> kMilliseconds{0.0, 1e9};
  constexpr Range<std::int64_t> kTokens{1, 1 << 20};
  return {
      list_key<double>(
          "serving.rates", MEMBER(serving.rates),
          [kRate](const toml::node& node) { return read_number(node, kRate); }, number,
          {.may_be_empty = true},
          "requests per second and device; phases then serve requests instead of taking "
          "phases.steps steps"),
      flag_key("serving.find_rate", MEMBER(serving.find_rate),
               "instead of given rates: the highest at which serving.attainment is kept"),
      number_key("serving.attainment", MEMBER(serving.attainment), {0.01, 0.999},
                 "share of requests within both limits that serving.find_rate keeps"),
      integer_key("serving.requests", MEMBER(serving.requests), {1, 10'000'000},
                  "requests of a phase; of a longer recorded trace the first ones"),
      word_key<Arrivals>("serving.arrivals", MEMBER(serving.arrivals), "when requests come"),
      number_key("serving.burstiness", MEMBER(serving.burstiness), {0.01, 1.0},
                 "bursty arrivals: shape of the gamma distribution between them (1: Poisson)"),
      text_key("serving.path", MEMBER(serving.path),
               "recorded arrivals: CSV arrival,input,output; brought to the rate where one is "
               "given"),
      list_key<Lengths>(
          "serving.lengths", MEMBER(serving.lengths), read_word<Lengths>,
          [](Lengths lengths) { return quoted(word_of(lengths)); }, {.may_repeat = true},
          fmt::format("tokens of prompts and answers, one after the other over equal parts of the "
                      "run: {}. On modelled GPUs other experts are popular with each kind, where "
                      "routing is synthetic",
                      fmt::join(words<Lengths>(), ", "))),
      integer_key("serving.input_tokens", MEMBER(serving.input_tokens), kTokens,
                  "fixed lengths: tokens of a prompt"),
      integer_key("serving.output_tokens", MEMBER(serving.output_tokens), kTokens,
                  "fixed lengths: tokens of an answer"),
      word_key<ServingMode>("serving.mode", MEMBER(serving.mode),
                            "whole requests, prompts alone (one token each), or answers alone "
                            "(prompts cached but for 16 tokens)"),
      integer_key("serving.token_budget", MEMBER(serving.token_budget), {1, 1 << 24},
                  "tokens of a step over all devices; longer prompts take several steps"),
      integer_key("serving.max_running", MEMBER(serving.max_running), {1, 1 << 20},
                  "requests in a step"),
      number_key("serving.slo_ttft_ms", MEMBER(serving.slo_ttft_ms), kMilliseconds,
                 "limit of the time to first token, ms; 0: none"),
      number_key("serving.slo_tpot_ms", MEMBER(serving.slo_tpot_ms), kMilliseconds,
                 "limit of the time per output token, ms; 0: none"),
      number_key("serving.moe_share_prefill", MEMBER(serving.moe_share_prefill), {0.01, 1.0},
                 "MoE layers' part of a prefill step's time with all tokens even; the rest "
                 "(attention ...) is the same for all policies"),
      number_key("serving.moe_share_decode", MEMBER(serving.moe_share_decode), {0.01, 1.0},
                 "the same of a decode step"),
      integer_key("serving.share_tokens_prefill", MEMBER(serving.share_tokens_prefill),
                  {1, 1 << 24}, "tokens of the step with serving.moe_share_prefill"),
      integer_key("serving.share_tokens_decode", MEMBER(serving.share_tokens_decode), {1, 1 << 24},
                  "tokens of the step with serving.moe_share_decode"),
      word_key<Disturbance>("serving.disturbance", MEMBER(serving.disturbance),
                            "model: what slows a device in the run (inlet air 15 C warmer, cap "
                            "30 % lower, kernels 1.3 times longer)"),
      integer_key("serving.disturbed_device", MEMBER(serving.disturbed_device),
                  {0, kDevices.high - 1}, "which device"),
      number_key("serving.disturbed_at", MEMBER(serving.disturbed_at), kPart,
                 "part of the requests that arrive before"),
  };
}

#undef MEMBER

}  // namespace

std::string to_string(Order value) { return word_of(value); }
std::string to_string(WorkloadKind value) { return word_of(value); }
std::string to_string(DeviceKind value) { return word_of(value); }
std::string to_string(Heat value) { return word_of(value); }
std::string to_string(CapMode value) { return word_of(value); }
std::string to_string(Recompute value) { return word_of(value); }
std::string to_string(Profiling value) { return word_of(value); }
std::string to_string(ProfiledDevices value) { return word_of(value); }
std::string to_string(Scaling value) { return word_of(value); }
std::string to_string(Draw value) { return word_of(value); }
std::string to_string(Precision value) { return word_of(value); }
std::string to_string(ExchangePath value) { return word_of(value); }
std::string to_string(ExchangeCounts value) { return word_of(value); }
std::string to_string(Overlap value) { return word_of(value); }
std::string to_string(L2 value) { return word_of(value); }
std::string to_string(Arrivals value) { return word_of(value); }
std::string to_string(Lengths value) { return word_of(value); }
std::string to_string(ServingMode value) { return word_of(value); }
std::string to_string(Disturbance value) { return word_of(value); }

std::string quoted(std::string_view text) {
  std::string toml = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20U || byte == 0x7FU) {
      toml += fmt::format("\\u{:04X}", byte);
    } else {
      toml += (c == '"' || c == '\\') ? std::string{'\\', c} : std::string{c};
    }
  }
  return toml + "\"";
}

std::span<const Key> keys() {
  static const std::vector<Key> all = [] {
    std::vector<Key> list;
    for (auto part : {study_keys, model_keys, workload_keys, fleet_keys, condition_keys,
                      placement_keys, phase_keys, serving_keys}) {
      for (auto& key : part()) {
        list.push_back(std::move(key));
      }
    }
    return list;
  }();
  return all;
}

}  // namespace moevar::study
