#include "conditions/heal.hpp"

#include <algorithm>
#include <exception>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "system/nvml.hpp"

namespace moevar::conditions {

namespace {

/// Whether the captured limit is back: asked for, and nothing of the run enforced. What other
/// limiters enforce is theirs.
bool is_back(const Capture& capture, const ReadBack& now) {
  return now.requested_mw == capture.previous_mw &&
         (now.enforced_mw == capture.previous_enforced_mw ||
          now.enforced_mw == capture.previous_mw || !capture.has(now.enforced_mw));
}

Outcome confirm_or_throw(const std::filesystem::path& folder, const Capture& capture,
                         std::chrono::milliseconds patience) {
  const auto now = await_limit(capture.uuid, capture.previous_enforced_mw, patience);
  if (!is_back(capture, now)) {
    return {
        false, false,
        fmt::format("{}: put back to {} W, but {} W is requested and {} W enforced", capture.uuid,
                    watts(capture.previous_mw), watts(now.requested_mw), watts(now.enforced_mw))};
  }
  delete_capture(folder, capture.uuid);
  return {true, false, fmt::format("{}: {} W restored", capture.uuid, watts(capture.previous_mw))};
}

/// Whether the machine has no such GPU; false where NVML does not tell.
bool is_gone(const std::string& uuid) {
  if (!nvml::available()) {
    return false;
  }
  const auto all = within(kCallLimit, "looking for GPUs", [] { return nvml::uuids(); });
  return std::ranges::find(all, uuid) == all.end();
}

Outcome heal_or_throw(const std::filesystem::path& folder, const std::string& uuid,
                      std::chrono::milliseconds patience) {
  const auto capture = load_capture(folder, uuid);
  if (!capture) {
    return {true, false, fmt::format("{}: nothing to restore", uuid)};
  }
  if (capture->boot_id != boot_id() && is_gone(uuid)) {
    delete_capture(folder, uuid);
    return {true, false, fmt::format("{}: not in this machine since a reboot", uuid)};
  }
  const auto now = read_back(uuid);
  switch (heal_step(*capture, {capture->boot_id == boot_id(), now.requested_mw, now.enforced_mw})) {
    case HealStep::discard:
      delete_capture(folder, uuid);
      return {true, false,
              fmt::format("{}: {} W, cleared by a reboot", uuid, watts(now.requested_mw))};
    case HealStep::keep_none:
      delete_capture(folder, uuid);
      return {true, false, fmt::format("{}: {} W already", uuid, watts(now.requested_mw))};
    case HealStep::restore:
      write_limit(uuid, capture->previous_mw);
      return confirm_or_throw(folder, *capture, patience);
    case HealStep::report:
      break;
  }
  return {false, true,
          fmt::format("{}: {} W is neither what process {} set nor the {} W that it found; left "
                      "as it is (set it by nvidia-smi, or run: moevar caps restore --forget)",
                      uuid, watts(now.requested_mw), capture->pid, watts(capture->previous_mw))};
}

/// Counts one call, from here to over(), or until no thread is left that could make it.
class Counted {
 public:
  explicit Counted(std::shared_ptr<std::atomic<int>> calls) : calls_(std::move(calls)) {
    if (calls_) {
      ++*calls_;
    }
  }
  ~Counted() { over(); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  void over() noexcept {
    if (const auto calls = std::exchange(calls_, nullptr)) {
      --*calls;
    }
  }

 private:
  std::shared_ptr<std::atomic<int>> calls_;
};

class EndOfCall {
 public:
  explicit EndOfCall(Counted& call) : call_(call) {}
  ~EndOfCall() { call_.over(); }
  EndOfCall(const EndOfCall&) = delete;
  EndOfCall& operator=(const EndOfCall&) = delete;

 private:
  Counted& call_;
};

template <class Work>
Outcome outcome_of(const std::string& uuid, const Work& work) noexcept {
  try {
    return work();
  } catch (const std::exception& error) {
    return {false, false, fmt::format("{}: {}", uuid, error.what())};
  }
}

}  // namespace

HealStep heal_step(const Capture& capture, const HealFacts& facts) {
  const bool captured = facts.requested_mw == capture.previous_mw;
  const bool enforced_ours = facts.enforced_mw != capture.previous_mw &&
                             facts.enforced_mw != capture.previous_enforced_mw &&
                             capture.has(facts.enforced_mw);
  if (!facts.same_boot) {
    // a limit does not outlive a reboot, so one of the run's is somebody else's by now
    const bool odd = !captured && capture.has(facts.requested_mw);
    return odd ? HealStep::report : HealStep::discard;
  }
  if (captured) {
    return enforced_ours ? HealStep::restore : HealStep::keep_none;
  }
  return capture.has(facts.requested_mw) ? HealStep::restore : HealStep::report;
}

ReadBack read_back(const std::string& uuid) {
  return within(kCallLimit, fmt::format("reading the power limit of {}", uuid), [uuid] {
    const auto device = nvml::Device::find(uuid);
    return ReadBack{device.requested_limit(), device.enforced_limit()};
  });
}

ReadBack await_limit(const std::string& uuid, Milliwatts wanted,
                     std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kPause{20};
  const auto deadline = std::chrono::steady_clock::now() + patience;
  auto now = read_back(uuid);
  while (now.enforced_mw != wanted && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kPause);
    now = read_back(uuid);
  }
  return now;
}

void write_limit(const std::string& uuid, Milliwatts limit, std::chrono::milliseconds call_limit,
                 std::shared_ptr<std::atomic<int>> under_way) {
  try {
    within(call_limit, fmt::format("setting the power limit of {}", uuid),
           [uuid, limit, counted = std::make_shared<Counted>(std::move(under_way))] {
             const EndOfCall end(*counted);
             nvml::Device::find(uuid).set_limit(limit);
           });
  } catch (const nvml::NvmlError& error) {
    if (error.kind() != nvml::Failure::no_permission) {
      throw;
    }
    throw EnvironmentError(fmt::format(
        "the power limit of {} cannot be set without root's rights: {}", uuid, error.what()));
  }
}

Outcome confirm_back(const std::filesystem::path& folder, const Capture& capture,
                     std::chrono::milliseconds patience) noexcept {
  return outcome_of(capture.uuid, [&] { return confirm_or_throw(folder, capture, patience); });
}

Outcome heal(const std::filesystem::path& folder, const std::string& uuid,
             std::chrono::milliseconds patience) noexcept {
  return outcome_of(uuid, [&] { return heal_or_throw(folder, uuid, patience); });
}

}  // namespace moevar::conditions
