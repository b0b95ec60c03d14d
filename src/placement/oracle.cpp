#include "placement/policies.hpp"

namespace moevar::placement {

Placement plan_oracle(const Problem& step) { return solve(find_policy("minmax"), step); }

}  // namespace moevar::placement
