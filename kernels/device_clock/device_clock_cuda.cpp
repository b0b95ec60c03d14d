#include "device_clock/device_clock_cuda.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "device_clock/device_clock_kernels.hpp"
#include "device_clock/exchange.hpp"

namespace moevar::device_clock {

namespace {

constexpr Nanoseconds kSecond = 1'000'000'000;
/// Long enough for thousands of a clock's steps, were they a microsecond.
constexpr std::uint64_t kStepSearchNs = 3'000'000;

}  // namespace

void stamp(std::uint64_t* word, const cuda::Stream& stream) { launch_stamp(word, stream.raw()); }

Calibrator::Calibrator(const cuda::Stream& stream, int rounds)
    : answers_(static_cast<std::size_t>(std::max(rounds, 1))), question_(1) {
  launch_find_step(kStepSearchNs, answers_.data(), stream.raw());
  stream.synchronise();
  const std::uint64_t step = answers_.data()[0];
  if (step > static_cast<std::uint64_t>(kSecond)) {
    throw EnvironmentError(fmt::format(
        "this GPU's %globaltimer stood still for {} ms; moevar needs it to time the GPU's work",
        kStepSearchNs / 1'000'000));
  }
  step_ns_ = static_cast<Nanoseconds>(step);
}

double stamp_cost_ns(const cuda::Stream& stream) {
  constexpr int kStamps = 64;
  const cuda::DeviceArray<std::uint64_t> word(1);  // stamps of a layer go to the GPU's memory too
  const cuda::Event begin;
  const cuda::Event end;
  stamp(word.data(), stream);  // the first launch of a kernel loads it
  begin.record(stream);
  for (int i = 0; i < kStamps; ++i) {
    stamp(word.data(), stream);
  }
  end.record(stream);
  end.synchronise();
  return 1e3 * static_cast<double>(end.us_since(begin)) / kStamps;
}

Offset Calibrator::calibrate(const cuda::Stream& stream, const HostClock& now) {
  std::ranges::fill(answers_.values(), 0);
  question_.data()[0] = 0;
  stream.synchronise();
  launch_answers(question_.data(), static_cast<std::uint32_t>(answers_.size()), kSecond,
                 answers_.data(), stream.raw());
  const auto rounds = ask(question_.data()[0], answers_.values(), now, kSecond);
  // with the questions that are left, the kernel ends at once
  question_.data()[0] = std::numeric_limits<std::uint32_t>::max();
  stream.synchronise();
  if (rounds.size() < answers_.size()) {
    throw EnvironmentError(fmt::format(
        "the GPU answered {} of {} questions for its time within a second; does another program "
        "hold it, or CUDA_LAUNCH_BLOCKING or a debugger make launches wait?",
        rounds.size(), answers_.size()));
  }
  return offset_of(rounds, step_ns_);
}

}  // namespace moevar::device_clock
