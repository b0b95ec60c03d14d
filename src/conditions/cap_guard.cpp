#include "conditions/cap_guard.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <new>
#include <optional>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "conditions/cap.hpp"
#include "conditions/guardian.hpp"
#include "conditions/within.hpp"
#include "system/host.hpp"

namespace moevar::conditions {

namespace {

std::atomic<bool> restore_failed{false};
std::atomic<std::int64_t> holder_here{0};
std::atomic<bool> held_anywhere{false};

timeline::CapState ask_cap_state(const std::string& uuid) {
  return within(kCallLimit, fmt::format("reading the power limits of {}", uuid), [uuid] {
    const auto device = nvml::Device::find(uuid);
    const auto limits = device.limits();
    return timeline::CapState{watts(device.requested_limit()), watts(device.enforced_limit()),
                              watts(limits.normal), watts(limits.min), watts(limits.max)};
  });
}

/// What an owner leaves of `patience` for the next of several GPUs; never so little that a driver
/// that takes its time is not believed.
class SharedPatience {
 public:
  explicit SharedPatience(std::chrono::milliseconds patience)
      : deadline_(std::chrono::steady_clock::now() + patience) {}
  [[nodiscard]] std::chrono::milliseconds left() const {
    constexpr std::chrono::milliseconds kLeast{200};
    return std::max(kLeast, std::chrono::duration_cast<std::chrono::milliseconds>(
                                deadline_ - std::chrono::steady_clock::now()));
  }

 private:
  std::chrono::steady_clock::time_point deadline_;
};

}  // namespace

/// Its mutex is never released once the process is about to end: whoever wants to write then waits
/// for that end.
class CapGuard::State {
 public:
  State(std::vector<std::string> uuids, GuardOptions options)
      : uuids_(std::move(uuids)),
        options_(std::move(options)),
        folder_(options_.folder.empty() ? state_folder() : options_.folder) {
    for (const auto& uuid : uuids_) {
      locks_.push_back(GpuLock::take(folder_, uuid));
      heal_old(uuid);
    }
    try {
      for (const auto& uuid : uuids_) {
        capture(uuid);
      }
      guardian_.emplace(options_.program, folder_, uuids_, locks_);
    } catch (...) {
      if (*under_way_ == 0) {
        forget_captures();
      } else {
        keep_locks_until_exit();
      }
      throw;
    }
  }

  std::vector<timeline::CapState> set(const std::vector<Milliwatts>& limits) {
    if (phase_ != Phase::holding) {
      throw EnvironmentError("power limits were given back, and can no longer be set");
    }
    std::vector<timeline::CapState> states;
    for (std::size_t i = 0; i < uuids_.size(); ++i) {
      states.push_back(ask_cap_state(uuids_[i]));
      require_in_range(uuids_[i], states[i], limits[i]);
    }
    for (std::size_t i = 0; i < uuids_.size(); ++i) {
      remember(captures_[i], limits[i]);
    }
    for (std::size_t i = 0; i < uuids_.size(); ++i) {
      write(uuids_[i], limits[i]);
    }
    const SharedPatience patience(options_.patience);
    for (std::size_t i = 0; i < uuids_.size(); ++i) {
      const auto now = await_limit(uuids_[i], limits[i], patience.left());
      remember_enforced(captures_[i], now);
      enforced_[i] = now.enforced_mw;
      states[i].requested_w = watts(limits[i]);
      states[i].enforced_w = watts(now.enforced_mw);
    }
    return states;
  }

  [[nodiscard]] std::vector<Milliwatts> previous() const {
    std::vector<Milliwatts> limits;
    for (const auto& capture : captures_) {
      limits.push_back(capture.previous_mw);
    }
    return limits;
  }

  std::vector<std::string> watch() {
    std::vector<std::string> changes;
    for (std::size_t i = 0; i < uuids_.size(); ++i) {
      const auto now = read_back(uuids_[i]);
      if (now.enforced_mw != enforced_[i]) {
        changes.push_back(fmt::format("{}: the enforced limit went from {} to {} W by itself",
                                      uuids_[i], watts(enforced_[i]), watts(now.enforced_mw)));
        remember_enforced(captures_[i], now);
        enforced_[i] = now.enforced_mw;
      }
    }
    return changes;
  }

  /// A line for each GPU whose limit could not be put back, each time anew; empty: all are.
  std::vector<std::string> restore() {
    if (phase_ == Phase::holding) {
      failures_ = put_back();
      phase_ = failures_.empty() ? Phase::restored : Phase::failed;
      if (phase_ == Phase::restored) {
        guardian_->dismiss();
        guardian_.reset();
        locks_.clear();
      } else {
        // the guardian and the locks stay as long as this process, which may still write
        restore_failed = true;
      }
    }
    return failures_;
  }

  [[nodiscard]] bool failed() const noexcept { return phase_ == Phase::failed; }

  std::timed_mutex mutex;

 private:
  enum class Phase { holding, restored, failed };

  std::vector<std::string> put_back() {
    std::vector<std::string> failures;
    // all are written first: whoever ends this process may not wait for the read-backs
    std::vector<const Capture*> written;
    written.reserve(captures_.size());
    for (const auto& capture : captures_) {
      try {
        const bool overtaken = *under_way_ != 0;
        write_previous(capture);
        if (overtaken) {
          throw Unanswered(
              capture.uuid +
              ": put back, but the driver still works on an earlier limit of this run");
        }
        written.push_back(&capture);
      } catch (const Unanswered& error) {
        failures.emplace_back(error.what());
      } catch (const std::exception& error) {
        // nothing is amiss where the limit was never changed
        if (!confirm_back(folder_, capture, std::chrono::milliseconds(0)).healed) {
          failures.push_back(fmt::format("{}: {}", capture.uuid, error.what()));
        }
      }
    }
    const SharedPatience patience(options_.patience);
    for (const auto* capture : written) {
      if (const auto end = confirm_back(folder_, *capture, patience.left()); !end.healed) {
        failures.push_back(end.text);
      }
    }
    return failures;
  }

  void write(const std::string& uuid, Milliwatts limit) const {
    write_limit(uuid, limit, options_.call_limit, under_way_);
  }

  void keep_locks_until_exit() {
    static std::vector<GpuLock> kept;
    for (auto& lock : locks_) {
      kept.push_back(std::move(lock));
    }
    locks_.clear();
  }

  void heal_old(const std::string& uuid) {
    if (const auto end = heal(folder_, uuid); !end.healed) {
      throw Error(end.theirs ? ExitStatus::environment : ExitStatus::restore_failed, end.text);
    }
  }

  void capture(const std::string& uuid) {
    const auto now = read_back(uuid);
    captures_.push_back({uuid,
                         boot_id(),
                         now.requested_mw,
                         now.enforced_mw,
                         {now.requested_mw},
                         ::getpid(),
                         host::now_utc(),
                         options_.study});
    captures_.back().add(now.enforced_mw);
    enforced_.push_back(now.enforced_mw);
    save_capture(folder_, captures_.back());
    write(uuid, now.requested_mw);  // changes nothing, but for finding out whether it may
  }

  /// Without memory for a thread and its texts, at least the bare call is made.
  void write_previous(const Capture& capture) const {
    try {
      write(capture.uuid, capture.previous_mw);
    } catch (const std::bad_alloc&) {
      nvml::Device::find(capture.uuid).set_limit(capture.previous_mw);
    }
  }

  void forget_captures() noexcept {
    for (const auto& capture : captures_) {
      try {
        delete_capture(folder_, capture.uuid);
      } catch (const std::exception& error) {
        fmt::print(stderr, "moevar: {}\n", error.what());
      }
    }
  }

  /// On disk first: what is only in memory would not be known to who heals.
  void remember(Capture& capture, Milliwatts limit) const {
    auto more = capture;
    if (more.add(limit)) {
      save_capture(folder_, more);
      capture = std::move(more);
    }
  }

  /// What is enforced is the run's only while nobody else has asked for a limit since.
  void remember_enforced(Capture& capture, const ReadBack& now) const {
    if (capture.has(now.requested_mw)) {
      remember(capture, now.enforced_mw);
    }
  }

  static void require_in_range(const std::string& uuid, const timeline::CapState& state,
                               Milliwatts limit) {
    try {
      (void)requested_limit_w({state.min_w, state.default_w, state.max_w}, watts(limit));
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", uuid, error.what()));
    }
  }

  std::vector<std::string> uuids_;
  GuardOptions options_;
  std::filesystem::path folder_;
  std::vector<GpuLock> locks_;
  std::vector<Capture> captures_;
  std::vector<Milliwatts> enforced_;  ///< as last read back
  std::optional<Guardian> guardian_;
  Phase phase_ = Phase::holding;
  std::vector<std::string> failures_;
  /// Writes that the driver has not come back from; one that was given up may still come to pass.
  std::shared_ptr<std::atomic<int>> under_way_ = std::make_shared<std::atomic<int>>(0);
};

namespace {

/// The guards of this process. Like a guard's own mutex, this one stays locked where the process is
/// about to end.
std::mutex guards_mutex;

template <class State>
std::vector<State*>& guards() {
  static std::vector<State*> all;
  return all;
}

std::atomic<int> guard_count{0};

/// Also where memory is short or standard error is gone.
void complain(const char* failure) noexcept {
  std::fputs("moevar: A POWER LIMIT WAS NOT RESTORED: ", stderr);
  std::fputs(failure, stderr);
  std::fputs("; run: moevar caps restore\n", stderr);
}

void complain(const std::vector<std::string>& failures) noexcept {
  for (const auto& failure : failures) {
    complain(failure.c_str());
  }
}

}  // namespace

CapGuard::CapGuard(std::vector<std::string> uuids, GuardOptions options)
    : state_(std::make_unique<State>(std::move(uuids), std::move(options))) {
  const std::lock_guard lock(guards_mutex);
  guards<State>().push_back(state_.get());
  ++guard_count;
}

CapGuard::~CapGuard() {
  try {
    std::unique_lock lock(state_->mutex);
    if (!state_->failed()) {  // else it was told before
      complain(state_->restore());
    }
    if (state_->failed()) {
      (void)state_.release();  // NOLINT(bugprone-unused-return-value): stays until the process ends
      return;
    }
    lock.unlock();
    const std::lock_guard all(guards_mutex);
    std::erase(guards<State>(), state_.get());
    --guard_count;
  } catch (const std::exception& error) {
    restore_failed = true;
    complain(error.what());
  }
}

std::vector<timeline::CapState> CapGuard::set(const std::vector<Milliwatts>& limits) {
  const std::lock_guard lock(state_->mutex);
  return state_->set(limits);
}

std::vector<Milliwatts> CapGuard::previous() const { return state_->previous(); }

std::vector<std::string> CapGuard::watch() {
  const std::lock_guard lock(state_->mutex);
  return state_->watch();
}

void CapGuard::restore() {
  const std::lock_guard lock(state_->mutex);
  if (const auto failures = state_->restore(); !failures.empty()) {
    throw Error(ExitStatus::restore_failed,
                fmt::format("a power limit was not restored: {}; run: moevar caps restore",
                            fmt::join(failures, "; ")));
  }
}

bool restore_all_now() noexcept {
  bool all = true;
  guards_mutex.lock();
  for (auto* state : guards<CapGuard::State>()) {
    try {
      if (!state->mutex.try_lock_for(kCallLimit)) {
        throw EnvironmentError("the driver does not answer");
      }
      const bool told = state->failed();
      const auto failures = state->restore();
      if (!told) {
        complain(failures);
      }
      all = all && failures.empty();
    } catch (const std::exception& error) {
      restore_failed = true;
      all = false;
      complain(error.what());
    }
  }
  return all;
}

bool holds_limits() noexcept { return guard_count > 0; }

void note_holders(const JobsHolders& holders) noexcept {
  holder_here = holders.here;
  held_anywhere = holders.anywhere;
}

JobsHolders holders_of_job() noexcept { return {holder_here, held_anywhere}; }

bool a_restore_failed() noexcept { return restore_failed; }

timeline::CapState cap_state(const std::string& uuid) noexcept {
  try {
    return ask_cap_state(uuid);
  } catch (const std::exception&) {
    return {};
  }
}

}  // namespace moevar::conditions
