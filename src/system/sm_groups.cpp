#include "system/sm_groups.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"

namespace moevar::cuda {

std::vector<int> sm_groups(std::span<const int> sms, int groups, int sms_per_group) {
  if (sms.empty() || std::ranges::any_of(sms, [](int wanted) { return wanted < 1; })) {
    throw InputError(fmt::format("parts of {} SMs: there has to be one, and each has at least 1 SM",
                                 fmt::join(sms, " + ")));
  }
  std::vector<int> given(sms.size());
  std::ranges::transform(sms, given.begin(), [&](int wanted) {
    return wanted / sms_per_group + (wanted % sms_per_group == 0 ? 0 : 1);
  });
  const auto needed = std::accumulate(given.begin(), given.end(), 0LL);
  if (needed > groups) {
    throw EnvironmentError(fmt::format(
        "parts of {} SMs take {} groups of {}; this GPU gives {} of them, {} SMs in all",
        fmt::join(sms, " + "), needed, sms_per_group, groups, groups * sms_per_group));
  }
  return given;
}

}  // namespace moevar::cuda
