#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "device_clock/device_clock.hpp"

namespace moevar::device_clock {

/// The host's side of a calibration: for each of `answers`, 0 at first, it puts the round's number
/// (from 1) into `question` and waits until the other side has written its time into the answer.
/// Ends early where an answer has not come `patience_ns` after the first question; then there are
/// fewer rounds than answers. One spinning thread: a round takes microseconds.
std::vector<Round> ask(std::uint32_t& question, std::span<std::uint64_t> answers,
                       const HostClock& now, Nanoseconds patience_ns);

}  // namespace moevar::device_clock
