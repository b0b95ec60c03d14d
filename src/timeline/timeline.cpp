#include "timeline/timeline.hpp"

#include <algorithm>

namespace moevar::timeline {

Timeline::Timeline(std::size_t devices, std::size_t steps, std::size_t layers)
    : tokens({devices, steps, layers}),
      dispatch_ns({devices, steps, layers}),
      expert_ns({devices, steps, layers}),
      arrival_ns({devices, steps, layers}),
      wait_ns({devices, steps, layers}),
      combine_ns({devices, steps, layers}) {}

LayerTotals::LayerTotals(std::size_t steps, std::size_t layers)
    : layer_ns({steps, layers}),
      busy_sum_ns({steps, layers}),
      wait_sum_ns({steps, layers}),
      expert_max_ns({steps, layers}),
      expert_min_ns({steps, layers}),
      tokens_max({steps, layers}),
      tokens_sum({steps, layers}) {}

}  // namespace moevar::timeline
