#include "placement/policies.hpp"

#include <array>
#include <vector>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::placement {

std::span<const Policy> policies() {
  static constexpr std::array all{
      Policy{.name = "contiguous",
             .help = "experts in order, as engines place them by default",
             .assign = assign_contiguous},
      Policy{
          .name = "round_robin", .help = "experts dealt out in turn", .assign = assign_round_robin},
      Policy{.name = "random", .help = "a random permutation per layer", .assign = assign_random},
      Policy{.name = "eplb",
             .help = "equal tokens on all devices (DeepSeek's EPLB)",
             .assign = assign_eplb},
      Policy{.name = "vibe",
             .help = "tokens in proportion to measured speed (ViBE's greedy, slot-capped)",
             .assign = assign_vibe},
      Policy{.name = "minmax",
             .help = "smallest time of the slowest device, with replicas and their shares",
             .assign = assign_minmax},
  };
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
