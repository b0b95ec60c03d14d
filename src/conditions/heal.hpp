#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "conditions/capture.hpp"
#include "conditions/within.hpp"

/// Putting back what a run found. Whoever calls these holds the GPU's lock.
namespace moevar::conditions {

/// What to do about a capture whose run is dead.
enum class HealStep {
  discard,    ///< the machine was started anew since, and nothing of the run is left
  keep_none,  ///< the limit is the captured one: only the file goes
  restore,    ///< the limit is the run's: the captured one is put back
  report,     ///< somebody else set the limit since: nothing is touched
};

/// What is known when that is decided.
struct HealFacts {
  bool same_boot = true;
  Milliwatts requested_mw = 0;  ///< now
  Milliwatts enforced_mw = 0;   ///< now
};

/// Only what the run itself set is undone: a limit that is neither captured nor the run's is an
/// administrator's. One that is already the captured one while another of the run's is still
/// enforced counts as the run's.
HealStep heal_step(const Capture& capture, const HealFacts& facts);

/// How the end of a run's power limit came out.
struct Outcome {
  bool healed = false;  ///< the limit is what it was, read back, and the capture is gone
  bool theirs = false;  ///< not healed, since the limit is nobody's we know
  std::string text;     ///< one line that begins with the UUID
};

/// How long an enforced limit is waited for after it was set.
inline constexpr std::chrono::milliseconds kPatience{5'000};

/// After the captured limit was set: reads it back until it is there, and deletes the capture only
/// then. Never throws: `text` says what went wrong.
Outcome confirm_back(const std::filesystem::path& folder, const Capture& capture,
                     std::chrono::milliseconds patience = kPatience) noexcept;

/// Does what heal_step() says for the GPU's capture, if there is one. Never throws.
Outcome heal(const std::filesystem::path& folder, const std::string& uuid,
             std::chrono::milliseconds patience = kPatience) noexcept;

/// What a read-back shows.
struct ReadBack {
  Milliwatts requested_mw = 0;
  Milliwatts enforced_mw = 0;
};
ReadBack read_back(const std::string& uuid);
/// Reads back until `wanted` is enforced, for `patience` at most, since drivers take more than
/// 100 ms at times; the last reading.
ReadBack await_limit(const std::string& uuid, Milliwatts wanted,
                     std::chrono::milliseconds patience);
/// Sets a limit, within `call_limit`. Throws EnvironmentError, Unanswered where the driver took
/// longer. `under_way` counts the calls that the driver has not yet come back from.
void write_limit(const std::string& uuid, Milliwatts limit,
                 std::chrono::milliseconds call_limit = kCallLimit,
                 std::shared_ptr<std::atomic<int>> under_way = nullptr);

/// Milliwatts as watts.
inline double watts(Milliwatts limit) { return static_cast<double>(limit) * 1e-3; }

}  // namespace moevar::conditions
