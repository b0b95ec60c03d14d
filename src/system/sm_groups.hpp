#pragma once

#include <span>
#include <vector>

namespace moevar::cuda {

/// How many groups of SMs each part gets that wants `sms` of them, rounded up: a GPU hands out SMs
/// in `groups` groups of `sms_per_group`. Pure; part of builds without CUDA as well. Throws
/// InputError where a part wants none, EnvironmentError that says what the GPU has where it has not
/// enough.
std::vector<int> sm_groups(std::span<const int> sms, int groups, int sms_per_group);

}  // namespace moevar::cuda
