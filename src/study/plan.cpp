#include "study/plan.hpp"

#include <algorithm>
#include <optional>

#include "base/random.hpp"

namespace moevar::study {

namespace {

/// Causes of the straggler tax that are taken away.
struct Without {
  bool skew = false;
  bool differences = false;
};

/// Real devices cannot be made equal.
std::vector<Without> causes_of(const Study& study) {
  const bool real = study.fleet.device == DeviceKind::cpu || study.fleet.device == DeviceKind::cuda;
  if (!study.causes) {
    return {{}};
  }
  // one fleet after the other: real ones cost memory, equal ones another profile
  return real ? std::vector<Without>{{false, false}, {true, false}}
              : std::vector<Without>{{false, false}, {true, false}, {false, true}, {true, true}};
}

std::vector<Condition> conditions_of(const Study& study) {
  std::vector<std::optional<double>> caps(study.conditions.power_cap_w.begin(),
                                          study.conditions.power_cap_w.end());
  if (caps.empty()) {
    caps.emplace_back(std::nullopt);
  }
  std::vector<Condition> conditions;
  for (const auto& cap : caps) {
    for (const Heat heat : study.conditions.heat) {
      conditions.push_back({cap, heat});
    }
  }
  return conditions;
}

std::vector<std::optional<double>> rates_of(const Study& study) {
  if (study.serving.rates.empty()) {
    return {std::nullopt};
  }
  return {study.serving.rates.begin(), study.serving.rates.end()};
}

/// A pool is so many times what the draws of a size take together: they hardly overlap then.
constexpr int kPoolPart = 4;

/// How often fleets of that size are run.
int repeats_of(const Study& study, int devices) {
  return study.fleet.pool > 0
             ? std::min(study.repeats, std::max(1, study.fleet.pool / (kPoolPart * devices)))
             : study.repeats;
}

/// Everything of a repeat's phases but their policies: what changes seldom.
std::vector<PhaseSpec> settings_of(const Study& study, int repeat) {
  const auto conditions = conditions_of(study);
  const auto causes = causes_of(study);
  std::vector<PhaseSpec> settings;
  for (const int devices : study.fleet.devices) {
    if (repeat >= repeats_of(study, devices)) {
      continue;
    }
    for (const Scaling scaling : study.fleet.scaling) {
      for (const Without& without : causes) {
        for (const auto& condition : conditions) {
          PhaseSpec setting;
          setting.repeat = repeat;
          setting.devices = devices;
          setting.condition = condition;
          setting.scaling = scaling;
          setting.experts = experts_of(study, scaling, devices);
          setting.slots_per_device = slots_per_device(study, scaling, devices);
          setting.even_load = without.skew;
          setting.equal_fleet = without.differences;
          for (const auto& rate : rates_of(study)) {
            setting.rate = rate;
            settings.push_back(setting);
          }
        }
      }
    }
  }
  return settings;
}

bool same_setting(const PhaseSpec& a, const PhaseSpec& b) {
  return a.devices == b.devices && a.condition == b.condition && a.scaling == b.scaling &&
         a.even_load == b.even_load && a.equal_fleet == b.equal_fleet;
}

/// Fisher-Yates with counter-based draws.
template <class T>
void shuffle(std::vector<T>& items, const RandomKey& key) {
  for (std::size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1], items[key[i].below(i)]);
  }
}

}  // namespace

int experts_of(const Study& study, Scaling scaling, int devices) {
  return scaling == Scaling::weak ? study.fleet.experts_per_device * devices : study.model.experts;
}

int slots_per_device(const Study& study, Scaling scaling, int devices) {
  const int slots = experts_of(study, scaling, devices) + study.placement.redundant_experts;
  if (study.placement.fill_slots) {
    return (slots + devices - 1) / devices;
  }
  return slots % devices == 0 ? slots / devices : 0;
}

std::int64_t phases_of(const Study& study) {
  double repeats = 0.0;  // of all fleet sizes; a double, as the product may be beyond any integer
  for (const int devices : study.fleet.devices) {
    repeats += repeats_of(study, devices);
  }
  const std::size_t caps = std::max<std::size_t>(study.conditions.power_cap_w.size(), 1);
  double phases = repeats;
  for (const std::size_t levels :
       {study.fleet.scaling.size(), causes_of(study).size(), rates_of(study).size(), caps,
        study.conditions.heat.size(), study.placement.policies.size()}) {
    phases *= static_cast<double>(levels);
  }
  return static_cast<std::int64_t>(std::min(phases, static_cast<double>(kManyPhases)));
}

std::vector<PhaseSpec> make_plan(const Study& study) {
  const auto key = random_stream(study.seed, Stream::plan_order);
  const bool randomised = study.order == Order::randomised;
  std::vector<PhaseSpec> plan;
  for (int repeat = 0; repeat < study.repeats; ++repeat) {
    const auto block = key[static_cast<std::uint64_t>(repeat)];
    auto settings = settings_of(study, repeat);
    if (randomised) {
      shuffle(settings, block[0]);
    }
    for (std::size_t s = 0; s < settings.size(); ++s) {
      auto policies = study.placement.policies;
      if (randomised) {
        shuffle(policies, block[s + 1]);
      }
      for (const auto& policy : policies) {
        auto phase = settings[s];
        phase.index = static_cast<int>(plan.size());
        phase.policy = policy;
        const bool drawn_anew = study.fleet.pool > 0 && policy == policies.front();
        phase.new_condition = plan.empty() || drawn_anew || !same_setting(plan.back(), phase);
        plan.push_back(std::move(phase));
      }
    }
  }
  return plan;
}

}  // namespace moevar::study
