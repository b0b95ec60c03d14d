#include "placement/policies.hpp"

#include <array>
#include <vector>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::placement {

std::span<const Policy> policies() {
  static constexpr std::array<Policy, 5> all{{
      {"contiguous", "experts in order, as engines place them by default", assign_contiguous},
      {"round_robin", "experts dealt out in turn", assign_round_robin},
      {"random", "a random permutation per layer", assign_random},
      {"eplb", "equal tokens on all devices (DeepSeek's EPLB, no redundancy)", assign_eplb},
      {"vibe", "tokens in proportion to measured speed (ViBE's greedy, slot-capped)", assign_vibe},
  }};
  return all;
}

const Policy& find_policy(std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto& policy : policies()) {
    if (policy.name == name) {
      return policy;
    }
    names.push_back(policy.name);
  }
  throw InputError(fmt::format("no policy \"{}\"; the nearest is {}; there are {}", printable(name),
                               nearest(name, names), one_of(names)));
}

}  // namespace moevar::placement
