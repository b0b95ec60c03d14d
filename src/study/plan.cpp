#include "study/plan.hpp"

#include <algorithm>
#include <optional>

#include "base/random.hpp"

namespace moevar::study {

namespace {

/// A fleet size under a condition: what changes seldom.
struct Setting {
  int devices = 0;
  Condition condition;
};

std::vector<Setting> settings_of(const Study& study) {
  std::vector<std::optional<double>> caps(study.conditions.power_cap_w.begin(),
                                          study.conditions.power_cap_w.end());
  if (caps.empty()) {
    caps.emplace_back(std::nullopt);
  }
  std::vector<Setting> settings;
  for (const int devices : study.fleet.devices) {
    for (const auto& cap : caps) {
      for (const Heat heat : study.conditions.heat) {
        settings.push_back({devices, {cap, heat}});
      }
    }
  }
  return settings;
}

/// Fisher-Yates with counter-based draws.
template <class T>
void shuffle(std::vector<T>& items, const RandomKey& key) {
  for (std::size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1], items[key[i].below(i)]);
  }
}

}  // namespace

std::vector<PhaseSpec> make_plan(const Study& study) {
  const auto key = random_stream(study.seed, Stream::plan_order);
  const bool randomised = study.order == Order::randomised;
  std::vector<PhaseSpec> plan;
  for (int repeat = 0; repeat < study.repeats; ++repeat) {
    const auto block = key[static_cast<std::uint64_t>(repeat)];
    auto settings = settings_of(study);
    if (randomised) {
      shuffle(settings, block[0]);
    }
    for (std::size_t s = 0; s < settings.size(); ++s) {
      auto policies = study.placement.policies;
      if (randomised) {
        shuffle(policies, block[s + 1]);
      }
      for (const auto& policy : policies) {
        PhaseSpec phase;
        phase.index = static_cast<int>(plan.size());
        phase.repeat = repeat;
        phase.devices = settings[s].devices;
        phase.condition = settings[s].condition;
        phase.policy = policy;
        phase.new_condition = plan.empty() || plan.back().devices != phase.devices ||
                              plan.back().condition != phase.condition;
        plan.push_back(std::move(phase));
      }
    }
  }
  return plan;
}

}  // namespace moevar::study
