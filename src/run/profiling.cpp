#include "run/profiling.hpp"

#include <algorithm>
#include <numeric>

#include "base/error.hpp"
#include "stats/isotonic.hpp"
#include "stats/quantiles.hpp"

namespace moevar::run {

namespace {

std::vector<DeviceId> wanted(const ProfilePlan& plan, std::size_t fleet) {
  auto devices = plan.devices;
  if (devices.empty()) {
    devices.resize(fleet);
    std::iota(devices.begin(), devices.end(), 0);
  }
  return devices;
}

}  // namespace

ProfileTimes time_profile(const mpi::Communicator& ranks, const ProfilePlan& plan, DeviceId first,
                          std::size_t lanes, std::size_t fleet, const TimeExperts& time_experts) {
  ProfileTimes times({lanes, plan.grid.size(), kProfileRepeats});
  const auto time = [&](std::span<const std::size_t> which, std::size_t point, std::size_t repeat) {
    const auto us = time_experts(which, point);
    for (std::size_t i = 0; i < which.size() && repeat > 0; ++i) {  // the first warms up
      times(which[i], point, repeat - 1) = us[i];
    }
  };
  if (plan.which == study::ProfiledDevices::together) {
    std::vector<std::size_t> all(lanes);
    std::iota(all.begin(), all.end(), std::size_t{0});
    for (std::size_t point = 0; point < plan.grid.size(); ++point) {
      for (std::size_t repeat = 0; repeat <= kProfileRepeats; ++repeat) {
        ranks.barrier();
        time(all, point, repeat);
      }
    }
    return times;
  }
  for (const DeviceId device : wanted(plan, fleet)) {
    ranks.idle_barrier();
    const auto lane = static_cast<std::size_t>(device - first);
    for (std::size_t point = 0; device >= first && lane < lanes && point < plan.grid.size();
         ++point) {
      for (std::size_t repeat = 0; repeat <= kProfileRepeats; ++repeat) {
        time(std::span(&lane, 1), point, repeat);
      }
    }
  }
  ranks.idle_barrier();
  return times;
}

placement::SpeedCurve fitted_curve(const std::vector<double>& grid, const Matrix<double>& repeats) {
  const auto ranks = stats::quantile_interval(stats::kMedian, repeats.extent(1));
  if (!ranks) {
    throw CheckError("a profile of too few repeats for an interval");
  }
  const std::size_t median = stats::nearest_rank(stats::kMedian, repeats.extent(1));
  std::vector<double> medians;
  placement::Measurement measurement;
  for (std::size_t point = 0; point < repeats.extent(0); ++point) {
    const auto row = repeats.row(point);
    std::vector<double> sorted(row.begin(), row.end());
    std::ranges::sort(sorted);
    medians.push_back(sorted[median - 1]);
    measurement.lower_us.push_back(sorted[ranks->lower - 1]);
    measurement.upper_us.push_back(sorted[ranks->upper - 1]);
  }
  return {grid, stats::isotonic_fit(medians), std::move(measurement)};
}

placement::SpeedModels models_of(const mpi::Communicator& comm, const ProfilePlan& plan,
                                 const ProfileTimes& mine, std::size_t fleet) {
  if (plan.which == study::ProfiledDevices::alone) {
    comm.idle_barrier();  // those without devices have waited here all the time
  }
  ProfileTimes all({fleet, plan.grid.size(), kProfileRepeats});
  comm.all_gather(mine.flat(), all.flat());
  placement::SpeedModels models;
  for (const DeviceId device : wanted(plan, fleet)) {
    Matrix<double> repeats({plan.grid.size(), kProfileRepeats});
    std::ranges::copy(all.row(device), repeats.flat().begin());
    models.push_back(fitted_curve(plan.grid, repeats));
  }
  return models;
}

}  // namespace moevar::run
