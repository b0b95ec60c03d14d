#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/identity.hpp"
#include "placement/speed_model.hpp"
#include "record/manifest.hpp"
#include "study/plan.hpp"
#include "study/study.hpp"

namespace moevar::record {

/// What speed models are for, and depend on.
struct SpeedsWanted {
  const study::Study& study;
  const std::vector<DeviceIdentity>& fleet;   ///< profiled together, or one after the other
  const study::PhaseSpec& phase;              ///< its cap, heat and slots
  const std::vector<double>& enforced_cap_w;  ///< [devices]; NaN: not known
  const Session& session;                     ///< this program, and the hosts' drivers
  double max_tokens = 0.0;                    ///< a device's heaviest load
};

/// The speed models that a finished run measured, for a study that takes them instead of measuring
/// anew. Nothing here is collective.
class EarlierSpeeds {
 public:
  /// Of the run in that folder. Throws InputError where there is none, or one of modelled GPUs.
  explicit EarlierSpeeds(std::filesystem::path directory);

  struct Found {
    placement::SpeedModels models;  ///< [devices of the fleet]; empty: none that may be taken
    std::string difference;         ///< what keeps them from it
  };
  /// Those of the first phase on the same devices, in the same order, under the same cap, asked for
  /// and enforced, and heat, with as many slots, that reach as far as is wanted, but for a tenth;
  /// where also driver, program and libraries, expert shape, precision, overlap, emulation and
  /// phases.profile_devices agree. Not those of a fleet that was profiled once for several caps or
  /// heats. Throws InputError where the file is not as moevar writes it.
  [[nodiscard]] Found find(const SpeedsWanted& wanted) const;

 private:
  [[nodiscard]] std::string difference(const SpeedsWanted& wanted) const;

  std::filesystem::path directory_;
  Manifest manifest_;
  study::Study study_;
};

}  // namespace moevar::record
