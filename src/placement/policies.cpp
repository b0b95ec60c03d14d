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
             .assign = assign_eplb,
             .keeps_duplicates = true},
      Policy{.name = "eplb_steps",
             .help = "eplb that copies what is hottest step by step (SGLang's deepseek_vec)",
             .assign = assign_eplb_steps},
      Policy{.name = "sorted",
             .help = "experts by load dealt to devices by speed, in snake order (after Aurora)",
             .assign = assign_sorted},
      Policy{.name = "vibe",
             .help = "tokens in proportion to measured speed (ViBE's greedy, slot-capped)",
             .assign = assign_vibe},
      Policy{.name = "vibe_finish",
             .help = "vibe with targets that finish together by the whole speed curve",
             .assign = assign_vibe_finish},
      Policy{.name = "vibe_swap",
             .help = "vibe, then its swaps until none helps; on drift, swaps alone",
             .assign = assign_vibe_swap},
      Policy{.name = "flashlb",
             .help = "equal mean + risk of tokens over the steps (vllm-ascend's FlashLB)",
             .assign = assign_flashlb},
      Policy{.name = "gem_like",
             .help = "least sum over steps of the slowest device's time (GEM as reconstructed)",
             .assign = assign_gem_like},
      Policy{.name = "harmoeny",
             .help = "per step: tokens shifted to the emptiest device (HarMoEny)",
             .plan_step = plan_harmoeny,
             .from_home = true},
      Policy{.name = "harmoeny_speed",
             .help = "harmoeny to targets by speed instead of the mean",
             .plan_step = plan_harmoeny_speed,
             .from_home = true},
      Policy{.name = "minmax",
             .help = "smallest time of the slowest device, with replicas and their shares",
             .assign = assign_minmax,
             .keeps_budget = true},
      Policy{
          .name = "oracle",
          .help = "per step: minmax with the step's own loads, the floor for all placed in advance",
          .plan_step = plan_oracle},
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
