#include "record/earlier_speeds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"
#include "record/phase_file.hpp"
#include "record/speed_group.hpp"
#include "study/parse.hpp"
#include "system/hdf5.hpp"
#include "timeline/telemetry.hpp"

namespace moevar::record {

namespace {

std::string driver_of(const std::map<std::string, Facts>& hosts, const std::string& host) {
  const auto facts = hosts.find(host);
  if (facts == hosts.end()) {
    return "unknown";
  }
  const auto driver = facts->second.find("driver");
  return driver == facts->second.end() ? "unknown" : driver->second;
}

std::string cap_and_heat(std::optional<double> cap_w, const std::string& heat) {
  return fmt::format("{}, {}", cap_w ? fmt::format("{} W", *cap_w) : "own limit", heat);
}

/// How far a phase goes along with what is wanted: the further, the nearer.
enum class Match { none, devices, condition, cap, slots, intervals, range };

struct Look {
  Match match = Match::none;
  double reach = 0.0;  ///< tokens
  placement::SpeedModels models;
};

Look look_at(const hdf5::Group& phase, const std::vector<DeviceIdentity>& fleet,
             const SpeedsWanted& wanted) {
  constexpr double kShort = 1.1;
  const auto rows = phase.dataset("devices").read<std::int32_t>();
  const bool same =
      std::ranges::equal(rows, wanted.fleet, [&](std::int32_t row, const DeviceIdentity& device) {
        return row >= 0 && static_cast<std::size_t>(row) < fleet.size() &&
               fleet[static_cast<std::size_t>(row)].uuid == device.uuid;
      });
  if (!same) {
    return {};
  }
  const auto cap = phase.attribute<double>("power_cap_w");
  const auto& condition = wanted.phase.condition;
  const bool same_cap = std::isnan(cap) ? !condition.power_cap_w : condition.power_cap_w == cap;
  if (!same_cap || phase.text_attribute("heat") != study::to_string(condition.heat)) {
    return {Match::devices, 0.0, {}};
  }
  const auto enforced = phase.group("telemetry").dataset("enforced_cap_w").read<double>();
  if (!std::ranges::equal(enforced, wanted.enforced_cap_w, [](double there, double here) {
        return std::abs(there - here) <= timeline::kSameCapW ||
               (std::isnan(there) && std::isnan(here));
      })) {
    return {Match::condition, 0.0, {}};
  }
  const auto slots = phase.group("placement").attribute<std::int64_t>("slots_per_device");
  if (slots != wanted.phase.slots_per_device) {
    return {Match::cap, 0.0, {}};
  }
  auto models = read_speeds(phase.group(kSpeedModel), rows.size());
  double reach = std::numeric_limits<double>::infinity();
  for (const auto& model : models) {
    if (model.measurement().lower_us.empty()) {  // of a version that knew none
      return {Match::slots, 0.0, {}};
    }
    reach = std::min(reach, model.grid().back());
  }
  const bool far = kShort * reach >= wanted.max_tokens;
  return {far ? Match::range : Match::intervals, reach, std::move(models)};
}

std::string why(const Look& nearest, const SpeedsWanted& wanted) {
  switch (nearest.match) {
    case Match::none:
      return fmt::format("no phase there ran on just these {} devices, {} …", wanted.fleet.size(),
                         wanted.fleet.front().uuid);
    case Match::devices:
      return fmt::format("none there was measured at {}",
                         cap_and_heat(wanted.phase.condition.power_cap_w,
                                      study::to_string(wanted.phase.condition.heat)));
    case Match::condition:
      return "other power limits were enforced there";
    case Match::slots:
      return "they were measured without intervals there";
    case Match::cap:
      return fmt::format("none there is of {} slots on a device", wanted.phase.slots_per_device);
    default:
      return fmt::format("they end at {:.0f} tokens there, {:.0f} are needed", nearest.reach,
                         wanted.max_tokens);
  }
}

}  // namespace

EarlierSpeeds::EarlierSpeeds(std::filesystem::path directory) : directory_(std::move(directory)) {
  auto manifest = read_manifest(directory_);
  if (!manifest || !manifest->complete || manifest->sessions.empty()) {
    throw InputError(
        fmt::format("{}: {}; the folder of a finished run is needed", directory_.string(),
                    manifest ? "a run that is not finished" : "no run (manifest.json)"));
  }
  if (!std::filesystem::is_regular_file(directory_ / "study.h5")) {
    throw InputError(fmt::format("{}: no study.h5", directory_.string()));
  }
  manifest_ = std::move(*manifest);
  study_ =
      study::parse_expanded(manifest_.study_toml, (directory_ / "manifest.json").string()).study;
  if (study_.fleet.device != study::DeviceKind::cpu &&
      study_.fleet.device != study::DeviceKind::cuda) {
    throw InputError(
        fmt::format("{}: a run of modelled GPUs, whose speed models were computed, not measured",
                    directory_.string()));
  }
}

std::string EarlierSpeeds::difference(const SpeedsWanted& wanted) const {
  const auto& here = wanted.study;
  const auto differs = [](const char* what, const auto& there, const auto& now) {
    return there == now ? std::string() : fmt::format("{} is {} there, {} here", what, there, now);
  };
  std::vector<std::string> all{
      differs("fleet.device", study::to_string(study_.fleet.device),
              study::to_string(here.fleet.device)),
      differs("model.hidden", study_.model.hidden, here.model.hidden),
      differs("model.intermediate", study_.model.intermediate, here.model.intermediate),
      differs("fleet.precision", study::to_string(study_.fleet.precision),
              study::to_string(here.fleet.precision)),
      differs("fleet.emulated_sms", fmt::format("{}", study_.fleet.emulated_sms),
              fmt::format("{}", here.fleet.emulated_sms)),
      differs("fleet.overlap", study::to_string(study_.fleet.overlap),
              study::to_string(here.fleet.overlap)),
      differs("phases.profile_devices", study::to_string(study_.phases.profile_devices),
              study::to_string(here.phases.profile_devices))};
  const auto& conditions = study_.conditions;
  if (study_.phases.profile == study::Profiling::once &&
      (conditions.power_cap_w.size() > 1 || conditions.heat.size() > 1)) {
    all.emplace_back("phases.profile is once there, for several caps or heats");
  }
  for (const auto& session : manifest_.sessions) {
    for (const auto& device : wanted.fleet) {
      all.push_back(differs(fmt::format("the driver of {}", device.host).c_str(),
                            driver_of(session.hosts, device.host),
                            driver_of(wanted.session.hosts, device.host)));
    }
    for (const auto& [name, value] : wanted.session.program) {
      const auto there = session.program.find(name);
      all.push_back(
          differs(name.c_str(), there == session.program.end() ? "unknown" : there->second, value));
    }
  }
  const auto first = std::ranges::find_if(all, [](const auto& text) { return !text.empty(); });
  return first == all.end() ? "" : *first;
}

EarlierSpeeds::Found EarlierSpeeds::find(const SpeedsWanted& wanted) const {
  if (auto text = difference(wanted); !text.empty()) {
    return {{}, std::move(text)};
  }
  const auto path = directory_ / "study.h5";
  try {
    const auto file = hdf5::File::open(path);
    const auto fleet = read_fleet(file);
    const auto phases = file.group("phases");
    const auto count = file.attribute<std::int64_t>("planned_phases");
    Look nearest;
    for (int i = 0; i < count && nearest.match != Match::range; ++i) {
      auto look = look_at(phases.group(phase_name(i)), fleet, wanted);
      if (look.match > nearest.match) {
        nearest = std::move(look);
      }
    }
    if (nearest.match != Match::range) {
      return {{}, why(nearest, wanted)};
    }
    for (auto& model : nearest.models) {
      model.note_source(directory_.string());
    }
    return {std::move(nearest.models), ""};
  } catch (const Error& error) {
    throw InputError(fmt::format("{}: not as moevar writes it: {}", path.string(), error.what()));
  }
}

}  // namespace moevar::record
