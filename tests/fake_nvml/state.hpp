#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <ctime>

/// The state of the fake GPUs: a file of 64-bit words, mapped by every process that uses the fake
/// NVML, so that it can be looked at and steered when all of them are dead. Words are atomic and
/// there is no lock, which a killed process would leave. tests/cli/fake_nvml.py has the same
/// layout.
namespace moevar::fake_nvml {

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8);

inline constexpr std::uint64_t kMagic = 0x314C4D564E454B46;  // "FKENVML1"
inline constexpr int kMaxGpus = 16;
inline constexpr int kMaxProcesses = 4;

/// One GPU. Limits mW, times ms unless named otherwise; 0 turns a behaviour off.
struct Gpu {
  std::array<Word, 5> uuid;  ///< 40 characters
  Word min_mw;
  Word default_mw;
  Word max_mw;
  Word requested_mw;
  Word enforced_before_mw;  ///< what held when the last limit was set
  Word set_at_ns;           ///< CLOCK_MONOTONIC
  Word writes;              ///< limits set since the file was made

  Word refuse;               ///< no permission to set
  Word clamp_mw;             ///< enforces no less than this
  Word slow_ms;              ///< until a new limit is enforced
  Word revert_ms;            ///< until a limit gives way to the default by itself
  Word lost;                 ///< every call answers GPU is lost; 2: it has no handle either
  Word lost_after_writes;    ///< lost from that many writes on
  Word block_set_ms;         ///< a call that sets takes so long
  Word block_get_ms;         ///< a call that reads takes so long
  Word reasons;              ///< clocks-event reasons besides those of the cap
  Word refuse_after_writes;  ///< no permission from that many writes on

  // a small law of heat and power
  Word idle_mw;
  Word burn_mw;
  Word idle_mc;  ///< temperature at rest, m°C
  Word burn_mc;  ///< and after long work
  Word tau_ms;   ///< of the way between them
  Word idle_mhz;
  Word burn_mhz;

  Word burning;        ///< works since ...
  Word changed_at_ns;  ///< ... CLOCK_MONOTONIC
  Word changed_mc;     ///< temperature then
  Word energy_mj;      ///< until then
  Word capped_ns;      ///< time under the cap until then

  Word pci_bus;
  Word memory_bytes;
  Word not_persistent;                            ///< persistence mode is off
  Word compute_mode;                              ///< NVML's number
  Word mig;                                       ///< 0: off, 1: on, 2: not supported
  Word capability;                                ///< compute capability × 10
  std::array<Word, kMaxProcesses> pid;            ///< processes that compute; 0: none
  std::array<Word, kMaxProcesses> process_bytes;  ///< all ones: not told
};

struct State {
  Word magic;
  Word gpus;
  std::array<Gpu, kMaxGpus> gpu;
};

inline std::uint64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

inline std::uint64_t ms_since(const Word& then_ns, std::uint64_t now) {
  return (now - std::min(then_ns.load(), now)) / 1'000'000U;
}

inline bool reverted(const Gpu& gpu, std::uint64_t now) {
  return gpu.revert_ms != 0 && gpu.set_at_ns != 0 && ms_since(gpu.set_at_ns, now) >= gpu.revert_ms;
}

inline std::uint64_t requested_mw(const Gpu& gpu, std::uint64_t now) {
  return reverted(gpu, now) ? gpu.default_mw : gpu.requested_mw;
}

inline std::uint64_t enforced_mw(const Gpu& gpu, std::uint64_t now) {
  if (!reverted(gpu, now) && gpu.set_at_ns != 0 && ms_since(gpu.set_at_ns, now) < gpu.slow_ms) {
    return gpu.enforced_before_mw;
  }
  return std::max<std::uint64_t>(requested_mw(gpu, now), gpu.clamp_mw);
}

inline bool capped(const Gpu& gpu, std::uint64_t now) {
  return gpu.burning != 0 && gpu.burn_mw > enforced_mw(gpu, now);
}

inline std::uint64_t power_mw(const Gpu& gpu, std::uint64_t now) {
  return gpu.burning == 0 ? gpu.idle_mw.load()
                          : std::min<std::uint64_t>(gpu.burn_mw, enforced_mw(gpu, now));
}

inline double temperature_mc(const Gpu& gpu, std::uint64_t now) {
  const auto then = static_cast<double>(gpu.changed_mc);
  const auto target = static_cast<double>(gpu.burning != 0 ? gpu.burn_mc : gpu.idle_mc);
  if (gpu.tau_ms == 0) {
    return target;
  }
  const double ms = static_cast<double>(now - std::min(gpu.changed_at_ns.load(), now)) * 1e-6;
  return target + (then - target) * std::exp(-ms / static_cast<double>(gpu.tau_ms));
}

/// Clock as the cube root of power: near enough to the real law.
inline double clock_mhz(const Gpu& gpu, std::uint64_t now) {
  if (gpu.burning == 0) {
    return static_cast<double>(gpu.idle_mhz);
  }
  return static_cast<double>(gpu.burn_mhz) *
         std::cbrt(static_cast<double>(power_mw(gpu, now)) / static_cast<double>(gpu.burn_mw));
}

inline double ns_since_change(const Gpu& gpu, std::uint64_t now) {
  return static_cast<double>(now - std::min(gpu.changed_at_ns.load(), now));
}

inline std::uint64_t energy_mj(const Gpu& gpu, std::uint64_t now) {
  const double mj = static_cast<double>(power_mw(gpu, now)) * ns_since_change(gpu, now) * 1e-9;
  return gpu.energy_mj + static_cast<std::uint64_t>(mj);
}

inline std::uint64_t capped_ns(const Gpu& gpu, std::uint64_t now) {
  return gpu.capped_ns +
         (capped(gpu, now) ? static_cast<std::uint64_t>(ns_since_change(gpu, now)) : 0U);
}

/// What has been counted becomes the new start, before anything changes.
inline void settle(Gpu& gpu, std::uint64_t now) {
  const auto energy = energy_mj(gpu, now);
  const auto capped_time = capped_ns(gpu, now);
  const auto temperature = static_cast<std::uint64_t>(temperature_mc(gpu, now));
  gpu.energy_mj = energy;
  gpu.capped_ns = capped_time;
  gpu.changed_mc = temperature;
  gpu.changed_at_ns = now;
}

inline void set_limit(Gpu& gpu, std::uint64_t limit_mw) {
  const auto now = now_ns();
  settle(gpu, now);
  gpu.enforced_before_mw = enforced_mw(gpu, now);
  gpu.set_at_ns = now;
  gpu.requested_mw = limit_mw;
  ++gpu.writes;
}

}  // namespace moevar::fake_nvml
