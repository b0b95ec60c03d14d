#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "placement/drift.hpp"
#include "placement/placement.hpp"
#include "record/serving_record.hpp"
#include "run/backend.hpp"
#include "run/speed_watch.hpp"
#include "study/plan.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"

namespace moevar::run {

/// Notices in a serving run that a placement no longer fits, and moves experts to a new one of the
/// same policy. Loads: ViBE's cosine test (LoadDrift), once the window holds tokens enough; the
/// number of tokens varies from step to step here, so its change means nothing. Speeds: each
/// device's time ÷ what its model says of its experts, each by itself, relative to the middle
/// device of the layer call, and among steps of like size alone (SpeedWatch), for what models leave
/// out depends on that; devices that left their models are profiled anew. Planned for are the
/// window's mean loads, brought to the step that the mean token sees (Σ T² ÷ Σ T over its steps of
/// T tokens): most steps of a serving run are small ones, but most of its work is in the large.
/// Policies that look at single steps see that mean alone. Planning takes no time of the run;
/// moving stops it. One per run, on every rank, every member collective.
class Rearranger {
 public:
  /// References but `planned` outlive the object. `planned`: mean loads that `placement` was solved
  /// with, `speeds` its models.
  Rearranger(const mpi::Communicator& comm, const study::Study& study,
             const study::PhaseSpec& phase, Backend& backend, placement::SpeedModels speeds,
             const Matrix<double>& planned, placement::Placement placement);

  [[nodiscard]] const placement::Placement& placement() const noexcept { return placement_; }

  /// A step of `tokens` was run: its loads [layers × experts], and what this rank's devices did.
  /// What was done about it; `at_s` is the caller's.
  std::optional<record::Rearrangement> step(std::int64_t tokens,
                                            std::span<const std::uint32_t> loads,
                                            const timeline::Timeline& mine);

 private:
  void watch_speeds(std::int64_t step_tokens, std::span<const std::uint32_t> loads,
                    const timeline::Timeline& mine);
  /// What its model says of a device's experts in a layer, each by itself: the model's even split
  /// gives every slot its part of the time.
  [[nodiscard]] double model_us(std::size_t device, std::size_t layer,
                                std::span<const std::uint32_t> loads) const;
  /// Devices, with what their test says.
  [[nodiscard]] std::map<DeviceId, double> left_their_models() const;
  [[nodiscard]] std::string reason(const std::map<DeviceId, double>& left) const;
  void profile_again(const std::map<DeviceId, double>& left);
  [[nodiscard]] Matrix<double> loads_to_plan_for() const;
  void solve();

  const mpi::Communicator& comm_;
  const study::Study& study_;
  const study::PhaseSpec& phase_;
  Backend& backend_;
  placement::SpeedModels speeds_;
  placement::Placement placement_;
  placement::LoadDrift loads_;
  std::deque<double> step_tokens_;  ///< of the steps in the window
  /// Of the whole fleet, by the size of a step in half octaves.
  std::map<int, std::vector<SpeedWatch>> watches_;
};

}  // namespace moevar::run
