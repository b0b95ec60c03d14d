#include "study/keys.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <sstream>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "study/model_presets.hpp"

namespace moevar::study {

namespace {

// ---- words
// ------------------------------------------------------------------------------------------

template <class E>
struct Word {
  E value;
  std::string_view text;
};

template <class E>
struct Words;
template <>
struct Words<Order> {
  static constexpr std::array<Word<Order>, 2> list{
      {{Order::randomised, "randomised"}, {Order::listed, "listed"}}};
};
template <>
struct Words<WorkloadKind> {
  static constexpr std::array<Word<WorkloadKind>, 3> list{{{WorkloadKind::synthetic, "synthetic"},
                                                           {WorkloadKind::counts, "counts"},
                                                           {WorkloadKind::tokens, "tokens"}}};
};
template <>
struct Words<DeviceKind> {
  static constexpr std::array<Word<DeviceKind>, 4> list{{{DeviceKind::automatic, "auto"},
                                                         {DeviceKind::cuda, "cuda"},
                                                         {DeviceKind::cpu, "cpu"},
                                                         {DeviceKind::model, "model"}}};
};
template <>
struct Words<Heat> {
  static constexpr std::array<Word<Heat>, 3> list{
      {{Heat::ambient, "ambient"}, {Heat::soaked, "soaked"}, {Heat::neighbours, "neighbours"}}};
};
template <>
struct Words<CapMode> {
  static constexpr std::array<Word<CapMode>, 3> list{
      {{CapMode::set, "set"}, {CapMode::verify, "verify"}, {CapMode::observe, "observe"}}};
};
template <>
struct Words<Recompute> {
  static constexpr std::array<Word<Recompute>, 3> list{
      {{Recompute::between_phases, "between-phases"},
       {Recompute::on_drift, "on-drift"},
       {Recompute::once, "once"}}};
};
template <>
struct Words<Profiling> {
  static constexpr std::array<Word<Profiling>, 2> list{
      {{Profiling::condition, "condition"}, {Profiling::once, "once"}}};
};

template <>
struct Words<Scaling> {
  static constexpr std::array<Word<Scaling>, 2> list{
      {{Scaling::strong, "strong"}, {Scaling::weak, "weak"}}};
};
template <>
struct Words<Draw> {
  static constexpr std::array<Word<Draw>, 2> list{
      {{Draw::nodes, "nodes"}, {Draw::devices, "devices"}}};
};

template <class E>
std::string word_of(E value) {
  for (const auto& word : Words<E>::list) {
    if (word.value == value) {
      return std::string(word.text);
    }
  }
  return {};
}

template <class E>
std::vector<std::string_view> words() {
  std::vector<std::string_view> all;
  all.reserve(Words<E>::list.size());
  for (const auto& word : Words<E>::list) {
    all.push_back(word.text);
  }
  return all;
}

// ---- one value
// --------------------------------------------------------------------------------------

std::string shown(const toml::node& node) {
  std::ostringstream text;
  node.visit([&](const auto& value) { text << value; });
  return printable(text.str());
}

[[noreturn]] void wrong(const toml::node& node, const std::string& right) {
  throw InputError(fmt::format("{} is not {}", shown(node), right));
}

template <class T>
struct Range {
  T low;
  T high;
  [[nodiscard]] std::string text() const { return fmt::format("from {} to {}", low, high); }
};

std::int64_t read_integer(const toml::node& node, const Range<std::int64_t>& range) {
  const auto value = node.is_integer() ? node.value<std::int64_t>() : std::nullopt;
  if (!value || *value < range.low || *value > range.high) {
    wrong(node, fmt::format("a whole number {}", range.text()));
  }
  return *value;
}

double read_number(const toml::node& node, const Range<double>& range) {
  const auto value = node.is_number() ? node.value<double>() : std::nullopt;
  if (!value || !(*value >= range.low) || !(*value <= range.high)) {
    wrong(node, fmt::format("a number {}", range.text()));
  }
  return *value;
}

std::string read_text(const toml::node& node) {
  const auto value = node.value<std::string>();
  if (!value) {
    wrong(node, "text in quotation marks");
  }
  return *value;
}

template <class E>
E read_word(const toml::node& node) {
  const auto text = node.value<std::string>();
  for (const auto& word : Words<E>::list) {
    if (text && word.text == *text) {
      return word.value;
    }
  }
  const auto all = words<E>();
  wrong(node, fmt::format("one of {}", fmt::join(all, ", ")));
}

/// A list, or one value that stands for a list of one.
template <class T, class ReadOne>
std::vector<T> read_list(const toml::node& node, const ReadOne& read_one) {
  std::vector<T> list;
  if (const auto* array = node.as_array()) {
    for (const auto& element : *array) {
      list.push_back(read_one(element));
    }
  } else {
    list.push_back(read_one(node));
  }
  return list;
}

std::string number(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

// ---- kinds of keys
// ----------------------------------------------------------------------------------

/// `member` is a function Study& → the member's reference, usable for const and non-const studies.
template <class Member>
Key integer_key(std::string name, Member member, Range<std::int64_t> range, std::string_view help) {
  return {std::move(name), fmt::format("{}, {}", help, range.text()),
          [member, range](Study& study, const toml::node& node) {
            auto& target = member(study);
            target =
                static_cast<std::remove_reference_t<decltype(target)>>(read_integer(node, range));
          },
          [member](const Study& study) { return fmt::format("{}", member(study)); }};
}

template <class Member>
Key number_key(std::string name, Member member, Range<double> range, std::string_view help) {
  return {std::move(name), fmt::format("{}, {}", help, range.text()),
          [member, range](Study& study, const toml::node& node) {
            member(study) = read_number(node, range);
          },
          [member](const Study& study) { return number(member(study)); }};
}

template <class Member>
Key flag_key(std::string name, Member member, std::string_view help) {
  return {std::move(name), std::string(help),
          [member](Study& study, const toml::node& node) {
            const auto value = node.is_boolean() ? node.value<bool>() : std::nullopt;
            if (!value) {
              wrong(node, "true or false");
            }
            member(study) = *value;
          },
          [member](const Study& study) { return member(study) ? "true" : "false"; }};
}

template <class Member>
Key text_key(std::string name, Member member, std::string_view help) {
  return {std::move(name), std::string(help),
          [member](Study& study, const toml::node& node) { member(study) = read_text(node); },
          [member](const Study& study) { return quoted(member(study)); }, true};
}

template <class E, class Member>
Key word_key(std::string name, Member member, std::string_view help) {
  return {std::move(name), fmt::format("{}: {}", help, fmt::join(words<E>(), ", ")),
          [member](Study& study, const toml::node& node) { member(study) = read_word<E>(node); },
          [member](const Study& study) { return quoted(word_of(member(study))); }};
}

/// A list of `T`; `read_one` turns a node into an element, `write_one` an element into TOML.
template <class T, class Member, class ReadOne, class WriteOne>
Key list_key(std::string name, Member member, ReadOne read_one, WriteOne write_one,
             bool may_be_empty, std::string help) {
  return {std::move(name), std::move(help),
          [=](Study& study, const toml::node& node) {
            auto list = read_list<T>(node, read_one);
            if (list.empty() && !may_be_empty) {
              wrong(node, "a list with at least one element");
            }
            for (auto element = list.begin(); element != list.end(); ++element) {
              if (std::find(list.begin(), element, *element) != element) {
                wrong(node, "a list in which nothing stands twice");
              }
            }
            member(study) = std::move(list);
          },
          [=](const Study& study) {
            std::vector<std::string> texts;
            for (const auto& element : member(study)) {
              texts.push_back(write_one(element));
            }
            return fmt::format("[{}]", fmt::join(texts, ", "));
          }};
}

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
          [](int value) { return fmt::format("{}", value); }, false,
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
          [](Scaling scaling) { return quoted(word_of(scaling)); }, false,
          fmt::format("experts as fleets grow, fixed or in proportion: {}",
                      fmt::join(words<Scaling>(), ", "))),
      integer_key("fleet.experts_per_device", MEMBER(fleet.experts_per_device), {1, 1 << 20},
                  "weak scaling: routed experts of a layer ÷ devices"),
  };
}

std::vector<Key> condition_keys() {
  constexpr Range<double> watts{1.0, 10'000.0};
  return {
      list_key<double>(
          "conditions.power_cap_w", MEMBER(conditions.power_cap_w),
          [watts](const toml::node& node) { return read_number(node, watts); }, number, true,
          fmt::format("power caps, W, each {}; empty: the device's own limit", watts.text())),
      list_key<Heat>(
          "conditions.heat", MEMBER(conditions.heat), read_word<Heat>,
          [](Heat heat) { return quoted(word_of(heat)); }, false,
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
      list_key<std::string>("placement.policies", MEMBER(placement.policies), read_text, quoted,
                            false, "placement policies to compare"),
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
      number_key("record.telemetry_hz", MEMBER(record.telemetry_hz), {0.0, 1000.0},
                 "sampling rate of power, clock and temperature; 0: none"),
      flag_key("record.timelines", MEMBER(record.timelines),
               "keep every device's timeline, not only totals"),
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
std::string to_string(Scaling value) { return word_of(value); }
std::string to_string(Draw value) { return word_of(value); }

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
                      placement_keys, phase_keys}) {
      for (auto& key : part()) {
        list.push_back(std::move(key));
      }
    }
    return list;
  }();
  return all;
}

}  // namespace moevar::study
