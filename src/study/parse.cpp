#include "study/parse.hpp"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "study/keys.hpp"
#include "study/plan.hpp"

namespace moevar::study {

namespace {

/// A TOML document and what to call a place in it.
struct Source {
  toml::table table;
  std::string name;
  bool has_lines = true;

  [[nodiscard]] std::string at(const toml::source_region& region) const {
    return has_lines ? fmt::format("{}:{}", name, region.begin.line) : name;
  }
};

std::string first_line(std::string_view text) {
  return printable(text.substr(0, text.find('\n')), 160);
}

Source read_file_text(std::string_view text, const std::string& path) {
  try {
    return {toml::parse(text, path), path, true};
  } catch (const toml::parse_error& error) {
    throw InputError(fmt::format("{}:{}: not TOML: {}", path, error.source().begin.line,
                                 first_line(error.description())));
  }
}

std::string override_name(const std::string& text) {
  return fmt::format("--set {}", printable(text));
}

/// "a.b=c" with c as plain text, so that --set workload.path=trace.json needs no quotation marks.
Source text_override(const std::string& text) {
  const auto equals = text.find('=');
  try {
    return {toml::parse(text.substr(0, equals) + "=" + quoted(text.substr(equals + 1))),
            override_name(text), false};
  } catch (const toml::parse_error&) {
    throw InputError(fmt::format("{}: {} is no key; want section.key=value", override_name(text),
                                 printable(text.substr(0, equals))));
  }
}

Source read_override(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw InputError(
        fmt::format("{}: want section.key=value, as in fleet.devices=[8,16]", override_name(text)));
  }
  try {
    return {toml::parse(text), override_name(text), false};
  } catch (const toml::parse_error&) {
    return text_override(text);
  }
}

/// Whether a single value that is no text, such as a date, was given to a key that holds text.
bool overrides_text_key(const Source& source) {
  bool found = false;
  for (const auto& [section, content] : source.table) {
    if (const auto* table = content.as_table()) {
      for (const auto& [key, value] : *table) {
        const auto name = fmt::format("{}.{}", section.str(), key.str());
        const auto known = std::ranges::find(keys(), name, &Key::name);
        found = known != keys().end() && known->is_text && !value.is_string();
      }
    }
  }
  return found;
}

[[noreturn]] void unknown(const Source& source, const toml::source_region& region,
                          std::string_view name) {
  std::vector<std::string_view> names;
  const auto starts_a_key = [&](const Key& key) {
    return key.name.substr(0, key.name.find('.')) == name;
  };
  if (std::ranges::any_of(keys(), starts_a_key)) {
    throw InputError(fmt::format("{}: {} is a section: write [{}], and its keys below it",
                                 source.at(region), name, name));
  }
  for (const auto& key : keys()) {
    names.push_back(key.name);
  }
  throw InputError(fmt::format("{}: {}: no such key; the nearest is {}", source.at(region),
                               printable(name), nearest(name, names)));
}

/// Calls `visit(name, value)` for every section.key; anything else in the file is an unknown key.
template <class Visit>
void for_each_value(const Source& source, const Visit& visit) {
  for (const auto& [section, content] : source.table) {
    const auto* table = content.as_table();
    if (table == nullptr) {
      unknown(source, content.source(), section.str());
    }
    for (const auto& [key, value] : *table) {
      visit(fmt::format("{}.{}", section.str(), key.str()), value);
    }
  }
}

void apply(const Source& source, ParsedStudy& parsed) {
  const auto read = [&](const std::string& name, const toml::node& value) {
    const auto all = keys();
    const auto key = std::ranges::find(all, name, &Key::name);
    if (key == all.end()) {
      unknown(source, value.source(), name);
    }
    try {
      key->read(parsed.study, value);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}: {}", source.at(value.source()), name, error.what()));
    }
    parsed.origin.insert_or_assign(name, source.at(value.source()));
  };
  // a preset comes before the single sizes that change it, wherever they stand
  for_each_value(source, [&](const std::string& name, const toml::node& value) {
    if (name == "model.preset") {
      read(name, value);
    }
  });
  for_each_value(source, [&](const std::string& name, const toml::node& value) {
    if (name != "model.preset") {
      read(name, value);
    }
  });
}

/// The number of redundant experts nearest to the study's that every fleet divides; the smaller of
/// equals, none where fleets have too little in common.
std::optional<std::int64_t> nearest_redundant(const Study& study) {
  constexpr std::int64_t kMost = 1 << 20;  // what the key takes
  std::int64_t multiple = 1;
  for (const int devices : study.fleet.devices) {
    multiple = std::lcm(multiple, std::int64_t{devices});
    if (multiple > kMost + study.model.experts) {
      return std::nullopt;
    }
  }
  const std::int64_t slots = study.model.experts + study.placement.redundant_experts;
  const std::int64_t below = slots / multiple * multiple;
  const std::int64_t above = below + multiple;
  const bool take_below = below >= study.model.experts &&
                          (slots - below <= above - slots || above - study.model.experts > kMost);
  const std::int64_t redundant = (take_below ? below : above) - study.model.experts;
  return redundant <= kMost ? std::optional(redundant) : std::nullopt;
}

void check_slots(const ParsedStudy& parsed) {
  const Study& study = parsed.study;
  if (study.placement.fill_slots) {
    return;
  }
  const auto odd_under = [&](Scaling scaling) {
    return std::ranges::find_if(study.fleet.devices, [&](int devices) {
      return slots_per_device(study, scaling, devices) == 0;
    });
  };
  const auto& scaling = study.fleet.scaling;
  if (std::ranges::count(scaling, Scaling::weak) > 0) {
    if (const auto odd = odd_under(Scaling::weak); odd != study.fleet.devices.end()) {
      throw InputError(fmt::format(
          "{}: {} redundant experts don't divide over {} devices; with placement.fill_slots = true "
          "there are as many more as it takes",
          parsed.at("placement.redundant_experts"), study.placement.redundant_experts, *odd));
    }
  }
  const auto odd = odd_under(Scaling::strong);
  if (odd == study.fleet.devices.end() || std::ranges::count(scaling, Scaling::strong) == 0) {
    return;
  }
  const int slots = study.model.experts + study.placement.redundant_experts;
  const auto right = nearest_redundant(study);
  throw InputError(fmt::format(
      "{}: {} slots of a layer ({} experts + {} redundant) don't divide over {} devices; every "
      "device holds as many slots; {}",
      parsed.at(study.placement.redundant_experts > 0 ? "placement.redundant_experts"
                                                      : "fleet.devices"),
      slots, study.model.experts, study.placement.redundant_experts, *odd,
      right ? fmt::format("nearest for {}: {} redundant experts",
                          study.fleet.devices.size() > 1 ? "all fleets" : "it", *right)
            : "no number of redundant experts suits all fleets"));
}

using Need = std::function<void(bool given, std::string_view key, std::string_view right)>;

/// How fleets grow and where they are drawn from.
void check_scale(const Study& study, const Need& need) {
  const auto& fleet = study.fleet;
  const auto [smallest, largest] = std::ranges::minmax(fleet.devices);
  need(fleet.pool == 0 || largest <= fleet.pool, "fleet.pool",
       fmt::format("{} devices to draw from, but a fleet has {}", fleet.pool, largest));
  need(fleet.pool == 0 || study.placement.recompute == Recompute::between_phases,
       "placement.recompute",
       "every repeat draws other devices from fleet.pool; only \"between-phases\" makes sense");
  need(std::ranges::count(fleet.scaling, Scaling::weak) > 0 ||
           fleet.experts_per_device == Fleet{}.experts_per_device,
       "fleet.experts_per_device", "only weak scaling has it; leave it out, or set fleet.scaling");
  if (std::ranges::count(fleet.scaling, Scaling::weak) > 0) {
    constexpr std::int64_t kMostExperts = 1 << 24;  // as model.experts
    need(study.workload.kind == WorkloadKind::synthetic, "fleet.scaling",
         "only synthetic routing knows a layer with more experts; \"strong\" is right for others");
    need(study.model.top_k <= fleet.experts_per_device * std::int64_t{smallest},
         "fleet.experts_per_device",
         fmt::format("{} experts a token, but under weak scaling {} devices have {}",
                     study.model.top_k, smallest, fleet.experts_per_device * smallest));
    need(fleet.experts_per_device * std::int64_t{largest} <= kMostExperts,
         "fleet.experts_per_device",
         fmt::format("{} experts on each of {} devices; at most {} in all are possible",
                     fleet.experts_per_device, largest, kMostExperts));
  }
}

/// Keys that say how long to go on mean nothing where the number of steps is fixed.
void check_stopping(const ParsedStudy& parsed, const Need& need) {
  const auto& phases = parsed.study.phases;
  need(
      phases.precision == 0.0 || phases.max_steps >= phases.steps, "phases.max_steps",
      fmt::format("{} steps at most, but steps come {} at a time", phases.max_steps, phases.steps));
  const bool fixed = phases.precision == 0.0;
  const std::string unused = "a phase takes phases.steps steps unless phases.precision is given";
  need(!fixed || phases.max_steps == Phases{}.max_steps, "phases.max_steps", unused);
  need(!fixed || phases.time_limit_s == 0.0, "phases.time_limit_s", unused);
}

/// Keys of [serving] that mean nothing beside the others.
void check_requests(const Serving& serving, const Need& need) {
  const bool recorded = serving.arrivals == Arrivals::recorded;
  const auto has = [&](Lengths lengths) {
    return std::ranges::count(serving.lengths, lengths) > 0;
  };
  need(!recorded || !serving.path.empty(), "serving.path",
       R"(missing; serving.arrivals = "recorded" reads a file)");
  need(recorded || serving.path.empty(), "serving.path",
       R"(read where serving.arrivals is "recorded" alone; leave it out)");
  need(!recorded || serving.lengths == Serving{}.lengths, "serving.lengths",
       "recorded requests have their own; leave it out");
  need(serving.arrivals == Arrivals::bursty || serving.burstiness == Serving{}.burstiness,
       "serving.burstiness", R"(only arrivals = "bursty" has it; leave it out)");
  need(has(Lengths::fixed) || (serving.input_tokens == Serving{}.input_tokens &&
                               serving.output_tokens == Serving{}.output_tokens),
       serving.input_tokens == Serving{}.input_tokens ? "serving.output_tokens"
                                                      : "serving.input_tokens",
       R"(only lengths = "fixed" has it; leave it out)");
}

void check_serving(const ParsedStudy& parsed, const Need& need) {
  const Study& study = parsed.study;
  const auto& serving = study.serving;
  const auto given = std::ranges::find_if(
      parsed.origin, [](const auto& origin) { return origin.first.starts_with("serving."); });
  if (!study.serves()) {
    need(given == parsed.origin.end(), given == parsed.origin.end() ? "" : given->first,
         "no requests are served without serving.rates, serving.find_rate = true or recorded "
         "arrivals");
    return;
  }
  need(serving.rates.empty() || !serving.find_rate, "serving.rates",
       "serving.find_rate searches the rate itself; give one of the two");
  need(!serving.find_rate || serving.slo_ttft_ms > 0.0 || serving.slo_tpot_ms > 0.0,
       "serving.find_rate", "needs a limit to keep: serving.slo_ttft_ms or serving.slo_tpot_ms");
  need(study.phases.precision == 0.0, "phases.precision",
       "a phase that serves requests takes the steps that they need");
  need(!study.causes, "study.causes", "causes are split over steps of one size, not over requests");
  need(serving.share_tokens_decode < serving.share_tokens_prefill, "serving.share_tokens_prefill",
       fmt::format("a prefill step of {} tokens beside a decode step of {}; it must have more",
                   serving.share_tokens_prefill, serving.share_tokens_decode));
  need(serving.find_rate || serving.attainment == Serving{}.attainment, "serving.attainment",
       "only serving.find_rate goes by it; leave it out");
  const bool calm = serving.disturbance == Disturbance::none;
  need(!calm || serving.disturbed_device == Serving{}.disturbed_device, "serving.disturbed_device",
       "no serving.disturbance slows it; leave it out");
  need(!calm || serving.disturbed_at == Serving{}.disturbed_at, "serving.disturbed_at",
       "there is no serving.disturbance; leave it out");
  need(calm || serving.disturbed_device < std::ranges::min(study.fleet.devices),
       "serving.disturbed_device",
       fmt::format("device {} of {}", serving.disturbed_device,
                   std::ranges::min(study.fleet.devices)));
  need(serving.max_running <= serving.token_budget, "serving.token_budget",
       fmt::format("{} tokens a step for up to {} running requests; each needs one",
                   serving.token_budget, serving.max_running));
  check_requests(serving, need);
}

/// A plan is made as a whole, on every rank: this many phases take 0.2 GB.
void check_length(const Study& study, const Need& need) {
  constexpr std::int64_t kMostPhases = std::int64_t{1} << 20;
  const auto phases = phases_of(study);
  need(phases <= kMostPhases, "study.repeats",
       fmt::format("{}{} phases in all; at most {} are possible",
                   phases == kManyPhases ? "over " : "", phases, kMostPhases));
}

/// What single keys cannot know of each other.
void check_together(const ParsedStudy& parsed) {
  const Study& study = parsed.study;
  const auto& model = study.model;
  const Need need = [&](bool given, std::string_view key, std::string_view right) {
    if (!given) {
      throw InputError(fmt::format("{}: {}", parsed.at(key), right));
    }
  };
  need(model.hidden > 0, "model.hidden", "missing; give it, or a model.preset");
  need(model.intermediate > 0, "model.intermediate", "missing; give it, or a model.preset");
  need(model.experts > 0, "model.experts", "missing; give it, or a model.preset");
  need(model.top_k > 0, "model.top_k", "missing; give it, or a model.preset");
  need(model.top_k <= model.experts, "model.top_k",
       fmt::format("{} experts a token, but a layer has {}", model.top_k, model.experts));
  const bool recorded = study.workload.kind != WorkloadKind::synthetic;
  need(!recorded || !study.workload.path.empty(), "workload.path",
       fmt::format("missing; workload.kind = \"{}\" reads a file", to_string(study.workload.kind)));
  need(recorded || model.layers > 0, "model.layers", "missing; give it, or a model.preset");
  check_scale(study, need);
  check_stopping(parsed, need);
  check_serving(parsed, need);
  check_length(study, need);
  check_slots(parsed);
}

}  // namespace

std::string ParsedStudy::at(std::string_view key) const {
  const auto place = origin.find(key);
  return fmt::format("{}: {}", place == origin.end() ? path : place->second, key);
}

namespace {

/// `parsed` with the overrides, checked.
ParsedStudy finished(ParsedStudy parsed, const std::vector<std::string>& overrides) {
  for (const auto& text_of_one : overrides) {
    auto source = read_override(text_of_one);
    if (overrides_text_key(source)) {
      source = text_override(text_of_one);
    }
    apply(source, parsed);
  }
  check_together(parsed);
  return parsed;
}

}  // namespace

ParsedStudy parse(std::string_view text, const std::string& path,
                  const std::vector<std::string>& overrides) {
  ParsedStudy parsed;
  parsed.path = path;
  apply(read_file_text(text, path), parsed);
  return finished(std::move(parsed), overrides);
}

ParsedStudy parse_expanded(std::string_view text, const std::string& path,
                           const std::vector<std::string>& overrides) {
  ParsedStudy parsed;
  parsed.path = path;
  apply(read_file_text(text, path), parsed);
  parsed.origin.clear();
  return finished(std::move(parsed), overrides);
}

std::vector<KeyHelp> key_help() {
  std::vector<KeyHelp> help;
  const Study defaults;
  for (const auto& key : keys()) {
    help.push_back({key.name, key.write(defaults), key.help});
  }
  return help;
}

std::string to_toml(const Study& study) {
  std::string text;
  std::string section;
  for (const auto& key : keys()) {
    const auto value = key.write(study);
    if (value.empty() || (key.name.starts_with("serving.") && !study.serves())) {
      continue;
    }
    const auto dot = key.name.find('.');
    if (key.name.substr(0, dot) != section) {
      section = key.name.substr(0, dot);
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    }
    text += fmt::format("{} = {}\n", key.name.substr(dot + 1), value);
  }
  return text;
}

}  // namespace moevar::study
