#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/text.hpp"
#include "cli/commands.hpp"
#include "conditions/cap_guard.hpp"
#include "conditions/capture.hpp"
#include "conditions/guardian.hpp"
#include "conditions/heal.hpp"
#include "system/nvml.hpp"

namespace moevar::cli {

namespace {

/// "700 W", or "?" where it is not known.
std::string watts(double value) { return std::isnan(value) ? "?" : fmt::format("{:g} W", value); }

void require_nvml() {
  if (!nvml::available()) {
    throw EnvironmentError(nvml::why_unavailable());
  }
}

std::string cannot_look_into(const std::filesystem::path& folder) {
  return fmt::format(
      "{}: this user cannot look into it, and runs may have left power limits there; ask root",
      folder.string());
}

class CapsCommand : public Command {
 public:
  void add_options(CLI::App& app) override {
    app.require_subcommand(1);
    app.add_subcommand("show", "each GPU's power limits, and the run that holds them")
        ->callback([this] { action_ = [] { return show(); }; });
    auto* restore =
        app.add_subcommand("restore", "put back the limits that dead runs left behind; needs root");
    restore->callback([this] { action_ = [this] { return restore_all(); }; });
    restore->add_flag("--forget", forget_,
                      "what cannot be put back stays as it is, and what was saved is dropped");
    // what a run starts for itself
    auto* guard = app.add_subcommand("guard", "wait for the death of a run")->group("");
    guard->callback([this] { action_ = [this] { return stand_guard(); }; });
    guard->add_option("folder", folder_)->required();
    guard->add_option("uuids", uuids_)->required();
  }

  ExitStatus run(int /*argc*/, char** /*argv*/) override { return action_(); }

 private:
  static ExitStatus show() {
    require_nvml();
    const auto folder = conditions::state_folder_path();
    fmt::print("{:<42} {:>8} {:>8} {:>8} {:>10} {:>9}  {}\n", "GPU", "min", "default", "max",
               "requested", "enforced", "held by");
    for (const auto& uuid : nvml::uuids()) {
      const auto cap = conditions::cap_state(uuid);
      fmt::print("{:<42} {:>8} {:>8} {:>8} {:>10} {:>9}  {}\n", uuid, watts(cap.min_w),
                 watts(cap.default_w), watts(cap.max_w), watts(cap.requested_w),
                 watts(cap.enforced_w), holder(folder, uuid));
    }
    return ExitStatus::ok;
  }

  /// "?" where this user cannot know.
  static std::string holder(const std::filesystem::path& folder, const std::string& uuid) {
    try {
      if (const auto pid = conditions::holder_of(folder, uuid)) {
        return fmt::format("process {}", *pid);
      }
      if (conditions::hidden_state_folder()) {
        return "?";
      }
      const auto capture = conditions::load_capture(folder, uuid);
      return capture ? fmt::format("nobody; process {} left it, {:g} W before", capture->pid,
                                   conditions::watts(capture->previous_mw))
                     : "nobody";
    } catch (const EnvironmentError& error) {
      return fmt::format("? ({})", error.what());
    }
  }

  [[nodiscard]] ExitStatus restore_all() const {
    const auto hidden = conditions::hidden_state_folder();
    if (hidden && *hidden == conditions::state_folder_path()) {
      throw EnvironmentError(cannot_look_into(*hidden));
    }
    const auto left = conditions::captured_uuids(conditions::state_folder_path());
    if (hidden) {
      fmt::print(stderr, "moevar: {}\n", cannot_look_into(*hidden));
    }
    if (left.empty()) {
      if (hidden) {
        return ExitStatus::environment;
      }
      fmt::print("no power limits to restore\n");
      return ExitStatus::ok;
    }
    const auto folder = conditions::state_folder();
    require_nvml();
    auto status = hidden ? ExitStatus::environment : ExitStatus::ok;
    for (const auto& uuid : left) {
      status = std::max(status, restore_one(folder, uuid));
    }
    return status;
  }

  [[nodiscard]] ExitStatus restore_one(const std::filesystem::path& folder,
                                       const std::string& uuid) const {
    try {
      const auto lock = conditions::GpuLock::take(folder, uuid);
      const auto end = conditions::heal(folder, uuid);
      if (!end.healed && forget_) {
        conditions::delete_capture(folder, uuid);
        fmt::print("{}\n{}: left as it is, and forgotten\n", end.text, uuid);
        return ExitStatus::ok;
      }
      fmt::print("{}\n", end.text);
      return end.healed   ? ExitStatus::ok
             : end.theirs ? ExitStatus::environment
                          : ExitStatus::restore_failed;
    } catch (const Error& error) {  // held: by a run that lives, or by a dead one's guardian
      fmt::print("{}\n", error.what());
      return error.status();
    }
  }

  [[nodiscard]] ExitStatus stand_guard() const {
    if (!std::filesystem::path(folder_).is_absolute()) {  // its working directory is no longer mine
      throw InputError(fmt::format("folder: '{}' must be absolute", printable(folder_, 200)));
    }
    return conditions::stand_guard(folder_, uuids_) ? ExitStatus::ok : ExitStatus::restore_failed;
  }

  std::function<ExitStatus()> action_;
  bool forget_ = false;
  std::string folder_;
  std::vector<std::string> uuids_;
};

}  // namespace

std::unique_ptr<Command> make_caps_command() { return std::make_unique<CapsCommand>(); }

}  // namespace moevar::cli
