#include "conditions/model_plant.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "conditions/cap.hpp"
#include "conditions/share.hpp"

namespace moevar::conditions {

namespace {

constexpr DeviceId kPair = 2;

/// `mine` with the other halves of the pairs that it cuts.
DeviceRange whole_pairs(DeviceRange mine, std::size_t devices) {
  if (mine.size() == 0) {
    return mine;
  }
  const DeviceId end = mine.end + mine.end % kPair;
  return {mine.begin - mine.begin % kPair, std::min(end, static_cast<DeviceId>(devices))};
}

std::vector<fleet::GpuTraits> part_of(std::span<const fleet::GpuTraits> fleet, DeviceRange range) {
  const auto part =
      fleet.subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
  return {part.begin(), part.end()};
}

}  // namespace

ModelPlant::ModelPlant(const mpi::Communicator& comm, const fleet::GpuFamily& family,
                       std::span<const fleet::GpuTraits> fleet, DeviceRange mine)
    : comm_(comm),
      family_(family),
      devices_(fleet.size()),
      mine_(mine),
      first_(whole_pairs(mine, fleet.size()).begin),
      gpus_(part_of(fleet, whole_pairs(mine, fleet.size()))),
      transient_(family, gpus_) {}

void ModelPlant::set_cap(std::optional<double> request_w) {
  transient_.set_cap(
      requested_limit_w({family_.cap_min_w, family_.cap_max_w, family_.cap_max_w}, request_w));
  request_w_ = request_w;
}

std::vector<timeline::CapState> ModelPlant::caps() {
  return std::vector<timeline::CapState>(devices_,
                                         {.requested_w = request_w_.value_or(timeline::kUnknown),
                                          .enforced_w = request_w_.value_or(family_.cap_max_w),
                                          .default_w = family_.cap_max_w,
                                          .min_w = family_.cap_min_w,
                                          .max_w = family_.cap_max_w});
}

void ModelPlant::let_neighbours_burn(bool burn) {
  if (burn == neighbours_burn_) {
    return;
  }
  neighbours_burn_ = burn;
  std::vector<double> neighbour_w;
  if (burn) {
    const double cap_w = request_w_.value_or(family_.cap_max_w);
    for (const auto& gpu : gpus_) {
      // E3 counts from the node's mean inlet air, s (h/2) P. Measured alone, only who sits
      // downstream feels its neighbour, and feels all of it.
      const double steady_w =
          fleet::solve_steady(family_, gpu, fleet::gemm_activity(), cap_w).power_w;
      neighbour_w.push_back(gpu.slot_sign > 0 ? 2.0 * steady_w : 0.0);
    }
  }
  transient_.set_neighbours(neighbour_w);
}

void ModelPlant::sample() {
  const auto readings = my_readings();
  for (std::size_t i = 0; i < readings.size(); ++i) {
    series_[i].push_back(readings[i]);
  }
}

void ModelPlant::advance(double seconds, const fleet::Activity& activity) {
  const double end_s = time_s() + seconds;
  const std::span<const fleet::Activity> all(&activity, 1);
  while (period_s_ > 0.0 && next_sample_s_ <= end_s) {
    transient_.advance(std::max(next_sample_s_ - time_s(), 0.0), all);
    sample();
    next_sample_s_ += period_s_;
  }
  transient_.advance(std::max(end_s - time_s(), 0.0), all);

  std::int64_t off = 0;
  for (DeviceId device = mine_.begin; device < mine_.end; ++device) {
    off = transient_.failed(local(device)) ? device + 1 : off;
  }
  comm_.all_reduce_max(std::span(&off, 1));
  if (off > 0) {
    throw mpi::SharedError(
        ExitStatus::environment,
        fmt::format("modelled GPU {} reached {} °C and shut down", off - 1, family_.t_shut_c));
  }
}

void ModelPlant::work(double seconds, Burn burn) {
  let_neighbours_burn(burn == Burn::neighbours);
  advance(seconds, burn == Burn::fleet ? fleet::gemm_activity() : fleet::Activity{.level = 0.0});
}

void ModelPlant::run(double seconds) { advance(seconds, fleet::gemm_activity()); }

void ModelPlant::settle() {
  const auto activity = fleet::gemm_activity();
  transient_.settle(std::span(&activity, 1));
}

void ModelPlant::restore(const State& state) {
  transient_ = state.transient;
  neighbours_burn_ = state.neighbours_burn;
}

std::vector<timeline::Reading> ModelPlant::my_readings() const {
  std::vector<timeline::Reading> readings;
  for (DeviceId device = mine_.begin; device < mine_.end; ++device) {
    readings.push_back(transient_.reading(local(device)));
  }
  return readings;
}

std::vector<timeline::Counters> ModelPlant::my_counters() const {
  std::vector<timeline::Counters> counters;
  for (DeviceId device = mine_.begin; device < mine_.end; ++device) {
    counters.push_back(transient_.counters(local(device)));
  }
  return counters;
}

std::vector<double> ModelPlant::my_clocks() const {
  std::vector<double> clocks;
  for (DeviceId device = mine_.begin; device < mine_.end; ++device) {
    clocks.push_back(transient_.reading(local(device)).sm_clock_mhz);
  }
  return clocks;
}

std::vector<double> ModelPlant::my_mean_clocks() const {
  std::vector<double> clocks;
  for (DeviceId device = mine_.begin; device < mine_.end; ++device) {
    clocks.push_back(transient_.mean_clock_mhz(local(device)));
  }
  return clocks;
}

std::vector<timeline::Reading> ModelPlant::read() {
  auto readings = my_readings();
  const auto clocks = my_mean_clocks();
  for (std::size_t i = 0; i < readings.size(); ++i) {
    readings[i].sm_clock_mhz = clocks[i];
  }
  mark();
  return share(comm_, readings, devices_);
}

std::vector<timeline::Counters> ModelPlant::count() {
  return share(comm_, my_counters(), devices_);
}

void ModelPlant::start_telemetry(double hz) {
  period_s_ = 1.0 / hz;
  next_sample_s_ = time_s();
  series_.assign(static_cast<std::size_t>(mine_.size()), {});
}

std::vector<std::vector<timeline::Reading>> ModelPlant::stop_telemetry() {
  period_s_ = 0.0;
  return std::exchange(series_, {});
}

}  // namespace moevar::conditions
