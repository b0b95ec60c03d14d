#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "base/tensor.hpp"
#include "base/units.hpp"
#include "placement/speed_model.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"

/// How real devices' speed models come about: calls of their experts at every point of a grid, each
/// warmed up first, their medians with intervals, and a monotone fit through them.
namespace moevar::run {

/// Timed calls at a point, after one that is not. Of nine the second and the eighth in order hold
/// the median with 96 % (stats::quantile_interval); below six there is no interval of 95 %.
inline constexpr std::size_t kProfileRepeats = 9;

/// Microseconds of calls, [a rank's devices][points][kProfileRepeats].
using ProfileTimes = Tensor<double, 3>;

/// What the experts of these of a rank's devices take for the grid's point, µs, one for each, in
/// their order; those named together run together.
using TimeExperts =
    std::function<std::vector<double>(std::span<const std::size_t> lanes, std::size_t point)>;

struct ProfilePlan {
  std::vector<double> grid;  ///< tokens
  /// Together: every call begins on all devices at once, which share power and air. Alone: one
  /// device after the other, while the ranks of the others leave their cores idle.
  study::ProfiledDevices which = study::ProfiledDevices::together;
  std::vector<DeviceId> devices;  ///< those whose models are wanted; empty: all of the fleet
};

/// Times this rank's devices, `first` and the `lanes` - 1 after it, of a fleet of `fleet`. Alone,
/// only those wanted. Collective over `ranks`, those that have devices.
ProfileTimes time_profile(const mpi::Communicator& ranks, const ProfilePlan& plan, DeviceId first,
                          std::size_t lanes, std::size_t fleet, const TimeExperts& time_experts);

/// The models of the devices wanted, the same on every rank, from every rank's times (none on a
/// rank without devices). Collective over `comm`.
placement::SpeedModels models_of(const mpi::Communicator& comm, const ProfilePlan& plan,
                                 const ProfileTimes& mine, std::size_t fleet);

/// A curve through medians over `repeats`, [points][repeats] of times in µs: the isotonic fit, and
/// the medians' intervals as measured.
placement::SpeedCurve fitted_curve(const std::vector<double>& grid, const Matrix<double>& repeats);

}  // namespace moevar::run
