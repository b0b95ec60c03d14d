#include "conditions/nvml_plant.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <sched.h>
#include <span>
#include <thread>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "conditions/cap.hpp"
#include "conditions/within.hpp"

namespace moevar::conditions {

namespace {

Milliwatts to_milliwatts(double watts) {
  return static_cast<Milliwatts>(std::llround(watts * 1e3));
}

/// 1 for each core, by OS index, that this rank may run on.
std::vector<std::int64_t> my_cores() {
  cpu_set_t set{};
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::vector<std::int64_t> mine(CPU_SETSIZE);
  for (std::size_t core = 0; core < mine.size(); ++core) {
    mine[core] = CPU_ISSET(core, &set) ? 1 : 0;
  }
  return mine;
}

/// Refuses GPUs whose limits another run holds.
void require_unheld(const std::vector<std::string>& uuids, const std::filesystem::path& folder) {
  for (const auto& uuid : uuids) {
    if (const auto pid = holder_of(folder, uuid)) {
      throw EnvironmentError(
          fmt::format("the power limit of {} is held by process {}; what is measured while another "
                      "run changes it means nothing",
                      uuid, *pid));
    }
  }
}

/// The first rank's readings of one device, on every rank of the node.
std::vector<timeline::Reading> share_series(const mpi::Communicator& node,
                                            const std::vector<timeline::Reading>& readings) {
  constexpr std::size_t kWhole = 2;
  constexpr std::size_t kReal = 3;
  auto length = static_cast<std::int64_t>(readings.size());
  node.broadcast(std::span(&length, 1));
  const auto count = static_cast<std::size_t>(length);
  std::vector<std::int64_t> whole(count * kWhole);
  std::vector<double> real(count * kReal);
  for (std::size_t i = 0; i < readings.size(); ++i) {
    const auto& reading = readings[i];
    whole[i * kWhole] = reading.time_ns;
    whole[i * kWhole + 1] = static_cast<std::int64_t>(reading.throttle_reasons);
    real[i * kReal] = reading.sm_clock_mhz;
    real[i * kReal + 1] = reading.power_w;
    real[i * kReal + 2] = reading.temperature_c;
  }
  node.broadcast(std::span(whole));
  node.broadcast(std::span(real));
  std::vector<timeline::Reading> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    all[i] = {whole[i * kWhole], real[i * kReal], real[i * kReal + 1], real[i * kReal + 2],
              static_cast<std::uint64_t>(whole[i * kWhole + 1])};
  }
  return all;
}

}  // namespace

NvmlPlant::NvmlPlant(const mpi::Communicator& comm, int devices, std::string my_gpu_uuid,
                     study::CapMode mode, const std::string& study_name,
                     std::function<void(double seconds)> burn, GuardOptions options)
    : comm_(&comm),
      node_(comm.split_by_node()),
      devices_(devices),
      mode_(mode),
      burn_(std::move(burn)),
      uuids_(comm.all_gather(my_gpu_uuid)) {
  std::int64_t leader = comm.rank();
  node_.all_reduce_min(std::span(&leader, 1));
  leader_ = comm.all_gather(leader);
  for (int rank = 0; rank < devices_; ++rank) {
    if (leader_[static_cast<std::size_t>(rank)] == leader) {
      local_fleet_.push_back(rank);
    }
  }
  mpi::on_all(comm, [&] {
    if (devices_ < 1 || devices_ > comm.size()) {
      throw EnvironmentError(
          fmt::format("{} devices need as many ranks, one GPU each; there are {} ranks", devices_,
                      comm.size()));
    }
    refuse_shared_gpus();
    device_ =
        within(kCallLimit, my_gpu_uuid, [my_gpu_uuid] { return nvml::Device::find(my_gpu_uuid); });
  });
  mpi::on_all(comm, [&] {
    std::vector<std::string> mine;
    for (const int rank : local_fleet_) {
      mine.push_back(uuids_[static_cast<std::size_t>(rank)]);
    }
    if (mode_ == study::CapMode::set && node_.is_root() && !mine.empty()) {
      options.study = study_name;
      guard_.emplace(mine, std::move(options));
      return;
    }
    // whoever holds the limits changes them under what is measured here
    if (mode_ != study::CapMode::set && node_.is_root()) {
      require_unheld(mine, options.folder.empty() ? state_folder_path() : options.folder);
    }
  });
  std::int64_t here = guard_ ? ::getpid() : 0;
  node_.all_reduce_max(std::span(&here, 1));
  std::int64_t anywhere = here;
  comm.all_reduce_max(std::span(&anywhere, 1));
  note_holders({here, anywhere != 0});
}

NvmlPlant::~NvmlPlant() = default;

void NvmlPlant::refuse_shared_gpus() const {
  for (std::size_t a = 0; a < uuids_.size(); ++a) {
    for (std::size_t b = a + 1; b < uuids_.size(); ++b) {
      if (uuids_[a] == uuids_[b] && leader_[a] == leader_[b]) {
        throw EnvironmentError(
            fmt::format("ranks {} and {} have the same GPU, {}; every rank needs its own (at most "
                        "as many ranks on a node as it has GPUs, bound one to one)",
                        a, b, uuids_[a]));
      }
    }
  }
}

void require_in_range(const std::string& uuid, double request_w) {
  const auto cap = cap_state(uuid);
  if (std::isnan(cap.min_w)) {
    throw EnvironmentError(fmt::format("{} does not tell which power limits it accepts", uuid));
  }
  try {
    (void)requested_limit_w({cap.min_w, cap.default_w, cap.max_w}, request_w);
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", uuid, error.what()));
  }
}

void NvmlPlant::set_cap(std::optional<double> request_w) {
  mpi::on_all(*comm_, [&] {
    if (in_fleet() && request_w) {
      require_in_range(device_->uuid(), *request_w);
    }
  });
  requested_w_ = request_w;
  mpi::on_all(*comm_, [&] {
    if (guard_) {
      auto limits = guard_->previous();
      if (request_w) {
        std::ranges::fill(limits, to_milliwatts(*request_w));
      }
      guard_->set(limits);
    }
    if (mode_ == study::CapMode::verify && in_fleet() && request_w) {
      const auto enforced = read_back(device_->uuid()).enforced_mw;
      if (std::abs(enforced * 1e-3 - *request_w) > timeline::kSameCapW) {
        throw EnvironmentError(fmt::format(
            "{}: the study wants {:g} W, {:g} W is enforced; have the limit set, or take "
            "conditions.caps = \"set\" or \"observe\"",
            device_->uuid(), *request_w, enforced * 1e-3));
      }
    }
  });
}

std::vector<timeline::CapState> NvmlPlant::caps() {
  auto all = of_fleet([&] { return cap_state(device_->uuid()); });
  for (auto& cap : all) {
    cap.requested_w = requested_w_.value_or(timeline::kUnknown);
  }
  return all;
}

bool NvmlPlant::is_neighbour() const { return !in_fleet() && !local_fleet_.empty(); }

bool NvmlPlant::burns(Burn burn) const {
  return (burn == Burn::fleet && in_fleet()) || (burn == Burn::neighbours && is_neighbour());
}

void NvmlPlant::require_neighbours() const {
  std::int64_t here = is_neighbour() ? 1 : 0;
  node_.all_reduce_max(std::span(&here, 1));
  std::int64_t everywhere = local_fleet_.empty() ? 1 : here;
  comm_->all_reduce_min(std::span(&everywhere, 1));
  if (everywhere == 0) {
    throw mpi::SharedError(ExitStatus::environment,
                           "heat = \"neighbours\" needs, on every node of the fleet, a rank beyond "
                           "the fleet's whose GPU burns");
  }
}

void NvmlPlant::work(double seconds, Burn burn) {
  if (burn == Burn::neighbours) {
    require_neighbours();
  }
  mpi::on_all(*comm_, [&] {
    if (burns(burn) && !burning_.joinable()) {
      device_->hint_burning(true);
      burn_(seconds);
      device_->hint_burning(false);
    } else {
      std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    }
  });
}

void NvmlPlant::keep_burning(Burn burn) {
  constexpr double kBurstS = 0.05;  // how long the end may be waited for
  if (burn == Burn::neighbours && burns(burn)) {
    burning_ = std::jthread([this](const std::stop_token& stop) {
      device_->hint_burning(true);
      while (!stop.stop_requested()) {
        burn_(kBurstS);
      }
      device_->hint_burning(false);
    });
  } else if (burning_.joinable()) {
    burning_ = {};
  }
}

std::vector<timeline::Reading> NvmlPlant::read() {
  return of_fleet([&] {
    return within(kCallLimit, device_->uuid(),
                  [device = *device_] { return read_sensors(device); });
  });
}

std::vector<timeline::Counters> NvmlPlant::count() {
  return of_fleet([&] {
    const auto counts =
        within(kCallLimit, device_->uuid(), [device = *device_] { return device.counts(); });
    return timeline::Counters{counts.energy_mj, counts.sw_power_cap_ns, counts.sw_thermal_ns,
                              counts.hw_thermal_ns};
  });
}

void NvmlPlant::start_telemetry(double hz) {
  cost_ = {};
  auto cores = my_cores();
  node_.all_reduce_max(std::span(cores));
  const std::vector<bool> taken(cores.begin(), cores.end());
  mpi::on_all(*comm_, [&] {
    if (!node_.is_root() || local_fleet_.empty()) {
      return;
    }
    std::vector<nvml::Device> devices;
    for (const int rank : local_fleet_) {
      devices.push_back(nvml::Device::find(uuids_[static_cast<std::size_t>(rank)]));
    }
    poller_.emplace(std::move(devices), hz, taken);
  });
}

std::vector<std::vector<timeline::Reading>> NvmlPlant::stop_telemetry() {
  Poller::Result result;
  if (poller_) {
    result = poller_->stop();
    poller_.reset();
    cost_ = {result.cpu_s, result.wall_s};
  }
  result.readings.resize(local_fleet_.size());
  std::vector<std::vector<timeline::Reading>> mine;
  for (std::size_t d = 0; d < local_fleet_.size(); ++d) {
    auto series = share_series(node_, result.readings[d]);
    if (local_fleet_[d] == comm_->rank()) {
      mine.push_back(std::move(series));
    }
  }
  return mine;
}

std::vector<std::string> NvmlPlant::watch() {
  std::vector<std::string> mine;
  mpi::on_all(*comm_, [&] {
    if (guard_) {
      mine = guard_->watch();
    }
  });
  std::vector<std::string> all;
  for (const auto& text : comm_->all_gather(fmt::format("{}", fmt::join(mine, "\n")))) {
    for (std::size_t begin = 0; begin < text.size();) {
      const auto end = std::min(text.find('\n', begin), text.size());
      all.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return all;
}

}  // namespace moevar::conditions
