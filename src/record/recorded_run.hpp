#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/identity.hpp"
#include "placement/placement.hpp"
#include "placement/speed_model.hpp"
#include "record/summary.hpp"
#include "study/plan.hpp"

namespace moevar::record {

/// What a run that was cut short has left in its folder, for one that goes on with it. Nothing here
/// is collective.
class RecordedRun {
 public:
  /// Looks at the phases of `plan`, in order, up to the first whose file is not there or not whole.
  /// Throws InputError where a whole one is not what the plan has in its place.
  RecordedRun(std::filesystem::path directory, const std::vector<study::PhaseSpec>& plan);

  /// Phases that are whole, the first ones of the plan.
  [[nodiscard]] std::size_t phases() const noexcept { return phases_.size(); }
  /// The first file that is there and not whole; nullopt: none.
  [[nodiscard]] const std::optional<std::filesystem::path>& damaged() const noexcept {
    return damaged_;
  }

  [[nodiscard]] const CellSummary& cell(std::size_t phase) const { return phases_.at(phase).cell; }
  /// The phase that holds its speed models, which may be itself.
  [[nodiscard]] std::size_t speeds_from(std::size_t phase) const {
    return phases_.at(phase).speeds_from;
  }
  /// What PhaseRecord::to_resume was.
  [[nodiscard]] std::string state(std::size_t phase) const;
  [[nodiscard]] placement::SpeedModels speeds(std::size_t phase) const;
  /// Of the first of its steps, where each had its own.
  [[nodiscard]] placement::Placement placement(std::size_t phase) const;
  /// All devices that phases took theirs from. Throws InputError where that file is not whole.
  [[nodiscard]] std::vector<DeviceIdentity> fleet() const;

 private:
  struct Phase {
    CellSummary cell;
    std::size_t speeds_from = 0;
  };
  [[nodiscard]] std::filesystem::path path_of(std::size_t phase) const;
  [[nodiscard]] Phase read(const study::PhaseSpec& spec) const;

  std::filesystem::path directory_;
  std::vector<Phase> phases_;
  std::optional<std::filesystem::path> damaged_;
};

}  // namespace moevar::record
